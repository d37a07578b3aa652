"""The floor plan: no arrow against the table of rooms, and no two files import each other."""

import ast
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

import calibtrain

PACKAGE = Path(calibtrain.__file__).parent
PLAN = PACKAGE.parent / "docs" / "architecture.md"


def modules_of(package: Path) -> dict[str, Path]:
    """Every module below a package, by its dotted name."""
    found = {}
    for path in package.rglob("*.py"):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(package: Path) -> dict[str, set[str]]:
    """What each module imports of its own package, inside functions and for type checkers too."""
    modules = modules_of(package)
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    found[name].add(inner if inner in modules else node.module)
            elif isinstance(node, ast.Import):
                found[name].update(alias.name for alias in node.names)
        found[name] = {other for other in found[name] if other in modules} - {name}
    return found


def rings(imports: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of names each of which reaches all the others."""
    reached: dict[str, set[str]] = {}
    for name in imports:
        seen, ahead = set(), list(imports[name])
        while ahead:
            other = ahead.pop()
            if other not in seen:
                seen.add(other)
                ahead.extend(imports[other])
        reached[name] = seen
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached[other]))
        for name in imports
        if name in reached[name]
    }
    return [list(group) for group in sorted(groups)]


def rooms(imports: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """What each room (a folder of the package, or a file beside them) imports of the others."""

    def room(name: str) -> str:
        return ".".join(name.split(".")[:2])

    found: dict[str, set[str]] = {}
    for name, others in imports.items():
        if "." in name:  # the package itself holds its version alone
            mine = found.setdefault(room(name), set())
            mine.update(room(other) for other in others if "." in other)
    return {name: others - {name} for name, others in found.items()}


def floors(plan: str) -> list[str]:
    """The rooms of a table, lowest first."""
    return re.findall(r"^\| `(\w+)(?:/|\.py)` \|", plan, re.MULTILINE)


def against(imports: Mapping[str, Iterable[str]], order: list[str]) -> list[str]:
    """The imports of a room that stands higher, or in no table."""
    height = {room: floor for floor, room in enumerate(order)}
    found = []
    for name, others in imports.items():
        for other in others:
            mine, theirs = (each.split(".")[1:2] for each in (name, other))
            if not mine or not theirs or mine == theirs:  # the package itself holds its version
                continue
            if height.get(theirs[0], len(order)) >= height.get(mine[0], -1):
                found.append(f"{name} -> {other}")
    return sorted(found)


def readers_path(plan: str) -> list[str]:
    """The files of the numbered list under "The reader's path", in its order."""
    section = plan.split("## The reader's path\n")[1].split("\n## ")[0]
    return re.findall(r"^\d+\. `([\w/]+\.py)`: ", section, re.MULTILINE)


def module_name(path: str) -> str:
    """The dotted name of a file of the package."""
    return ".".join(["calibtrain", *path.removesuffix(".py").split("/")]).removesuffix(".__init__")


def backwards(imports: Mapping[str, Iterable[str]], order: list[str]) -> list[str]:
    """The imports of a list's modules that stand further down in it."""
    place = {name: number for number, name in enumerate(order)}
    return [
        f"{name} -> {other}"
        for name in order
        for other in imports[name]
        if place.get(other, -1) > place[name]
    ]


def test_the_readers_path_is_short_and_leads_one_way() -> None:
    path = readers_path(PLAN.read_text(encoding="utf-8"))
    lines = sum(len((PACKAGE / file).read_text(encoding="utf-8").splitlines()) for file in path)
    assert 15 <= len(path) == len(set(path)) <= 20
    assert lines <= 3_400
    assert backwards(imports_of(PACKAGE), [module_name(file) for file in path]) == []


def test_an_import_against_the_reading_order_is_found() -> None:
    assert backwards({"a": {"b"}, "b": {"other"}}, ["a", "b"]) == ["a -> b"]
    assert backwards({"a": {"b"}, "b": {"other"}}, ["b", "a"]) == []


def test_a_step_is_read_without_coupled_gradients_devices_and_replicas() -> None:
    imports = imports_of(PACKAGE)
    reached: set[str] = set()
    left = ["calibtrain.training.step"]
    while left:
        name = left.pop()
        if name not in reached:
            reached.add(name)
            left.extend(imports[name])
    training = r"training\.(coupled|shared|program|engine|group|stacked).*"
    elsewhere = rf"calibtrain\.(parallel\b.*|{training})"
    assert [name for name in reached if re.fullmatch(elsewhere, name)] == []
    assert "calibtrain.models.transformer" in reached


def test_no_arrow_points_up_the_house() -> None:
    order = floors(PLAN.read_text(encoding="utf-8"))
    assert set(order) == {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    } - {"__init__"}
    assert against(imports_of(PACKAGE), order) == []


def test_no_files_import_each_other() -> None:
    imports = imports_of(PACKAGE)
    assert len(imports) > 200
    assert rings(imports) == []


def test_no_rooms_import_each_other() -> None:
    assert rings(rooms(imports_of(PACKAGE))) == []


@pytest.mark.parametrize(
    "back",
    [
        "from house.upper import attic",
        "def climb():\n    import house.upper.attic",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.upper.attic import a",
    ],
)
def test_a_planted_ring_is_found(tmp_path: Path, back: str) -> None:
    texts = {"upper/attic.py": "from house.lower.cellar import b\na = b", "lower/cellar.py": back}
    for name, text in texts.items():
        path = tmp_path / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    imports = imports_of(tmp_path / "house")
    assert rings(imports) == [["house.lower.cellar", "house.upper.attic"]]
    assert rings(rooms(imports)) == [["house.lower", "house.upper"]]
    plan = "| room | what |\n|---|---|\n| `lower/` | coal |\n| `upper/` | trunks |\n"
    assert floors(plan) == ["lower", "upper"]
    assert against(imports, floors(plan)) == ["house.lower.cellar -> house.upper.attic"]

"""The image: Dockerfile and .dockerignore fit each other and the project."""

import re
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
INSTRUCTIONS = {"FROM", "COPY", "RUN", "ENV", "WORKDIR"}


def instructions() -> list[tuple[str, str]]:
    """The instructions of Dockerfile with their arguments, continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def copied() -> list[str]:
    """What is copied into the image."""
    return [name for word, rest in instructions() if word == "COPY" for name in rest.split()[:-1]]


def ignored(name: str) -> bool:
    """Whether .dockerignore keeps a file at the root out: the last line that matches decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and fnmatch(name, pattern):
            out = not line.startswith("!")
    return out


def test_the_dockerfile_copies_what_is_there_and_what_setup_needs() -> None:
    assert instructions()[0] == ("FROM", "python:3.12-slim")
    assert {word for word, _ in instructions()} <= INSTRUCTIONS
    for name in copied():
        assert (ROOT / name).exists()
        assert not ignored(name)
    for name in (".git", ".venv", "runs", "tests", "experiments", "study.yaml"):
        assert ignored(name)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    included = re.findall(r"^(?:graft|include) (.*)$", (ROOT / "MANIFEST.in").read_text(), re.M)
    needed = {project["readme"], *(name for line in included for name in line.split())}
    assert needed | {"pyproject.toml", "setup.py", "calibtrain"} <= set(copied())


def test_the_image_installs_extras_that_there_are() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (command,) = [rest for word, rest in instructions() if word == "RUN"]
    (extras,) = re.findall(r"/src\[(.*?)\]", command)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert subprocess.run(["sh", "-n", "-c", command]).returncode == 0
    assert "://" not in command


@pytest.mark.long
def test_the_image_is_built() -> None:
    builder = next((name for name in ("docker", "podman") if shutil.which(name)), None)
    if builder is None or subprocess.run([builder, "info"], capture_output=True).returncode:
        pytest.skip("neither docker nor podman is at hand; the Dockerfile is linted all the same")
    built = subprocess.run([builder, "build", "--quiet", ROOT], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    image = built.stdout.split()[-1]
    said = subprocess.run(
        [builder, "run", "--rm", image, "calibtrain", "config", "list"], capture_output=True
    )
    assert said.returncode == 0
    assert b"tiny" in said.stdout

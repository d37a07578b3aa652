"""The pages on clusters: their commands are commands, and what they promise is tested."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "docs" / name for name in ("cloud-tpu.md", "slurm.md")]


def blocks(page: Path) -> list[str]:
    """The indented blocks of a page that are commands."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", page.read_text("utf-8"), re.M)
    return [re.sub(r"^    ", "", block, flags=re.M) for block in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_are_parsed_by_a_shell(page: Path) -> None:
    found = [re.sub(r"^DIR.*\n", "", block, flags=re.M) for block in blocks(page)]
    assert len(found) >= 2
    for block in found:
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), block


def test_containers_on_tpu_vms_get_signals_and_time_and_demand_tpus() -> None:
    (line,) = [
        line
        for block in blocks(PAGES[0])
        for line in block.replace("\\\n", " ").splitlines()
        if "docker run" in line
    ]
    words = shlex.split(shlex.split(line)[1])
    assert {"-d", "--init"} <= set(words)
    assert int(words[words.index("--stop-timeout") + 1]) >= 60
    assert "JAX_PLATFORMS=tpu,cpu" in words


def test_every_event_has_its_test() -> None:
    text = (ROOT / "docs" / "scale.md").read_text("utf-8").partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 15
    for row in rows:
        (file, name), *_ = re.findall(r"`(tests/\S+)::(\w+)`", row)
        assert f"def {name}(" in (ROOT / file).read_text("utf-8"), row

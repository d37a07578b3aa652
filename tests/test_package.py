"""The package: its wheel is the program with all its files, and its papers name what is there."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

import calibtrain

REPOSITORY = Path(__file__).parent.parent
SOURCES = ("calibtrain", "configs", "tokenizers")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md")


def run(*command: str | Path, folder: Path, **variables: str) -> str:
    """Run a command without the repository's package on the path; its standard output."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_papers_agree_on_the_version() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == calibtrain.__version__
    changes = (REPOSITORY / "CHANGELOG.md").read_text()
    date = citation["date-released"]
    assert f"## [{calibtrain.__version__}] - {date}" in changes


def test_every_file_that_contributing_names_is_there() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:calibtrain|tests|docs|configs)/[\w/.]+)`", text)
    assert len(named) > 15
    assert [name for name in named if "NAME" not in name and not (REPOSITORY / name).exists()] == []


@pytest.mark.long
def test_the_wheel_trains_outside_of_the_repository(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a build leaves its files beside the sources
    for name in SOURCES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, source / name, ignore=ignored)
    for name in FILES:
        shutil.copy(REPOSITORY / name, source)
    offline = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index")
    pip = (sys.executable, "-m", "pip")
    built = ("wheel", *offline, "--no-build-isolation", "--wheel-dir", tmp_path, ".")
    run(*pip, *built, folder=source)
    (wheel,) = tmp_path.glob("calibtrain-*.whl")
    shutil.rmtree(source)

    home, work = tmp_path / "clean", tmp_path / "work"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    own = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=home)
    run(*pip, "--python", python, "install", *offline, wheel, folder=home)
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (Path(own.strip()) / "of-tests.pth").write_text("\n".join(packages))
    work.mkdir()
    command = home / "bin" / "calibtrain"
    where = "import calibtrain; print(calibtrain.__file__)"
    assert str(home) in run(python, "-c", where, folder=work)

    names = [
        row["name"] for row in json.loads(run(command, "config", "list", "--json", folder=work))
    ]
    assert {f"{name}.yaml" for name in names} == {
        path.relative_to(REPOSITORY / "configs").as_posix()
        for path in REPOSITORY.glob("configs/**/*.yaml")
    }
    run(command, "config", "copy", "tiny", folder=work)
    assert (work / "tiny.yaml").is_file()
    (work / "tiny.yaml").unlink()
    cache = tmp_path / "cache"
    small = ("budget={steps: 2}", "evaluation={times: 1, bytes: 2000, final_bytes: 2000}")
    told = run(command, "train", "tiny", *small, "--json", folder=work, CALIBTRAIN_CACHE=str(cache))
    assert json.loads(told)["status"] == "done"
    assert (work / "runs" / "tiny" / "run.json").is_file()
    assert not (cache / "tokenizers").exists(), "the published tokenizer is taken, not trained"
    run(command, "report", "runs/tiny", folder=work, CALIBTRAIN_CACHE=str(cache))
    assert (work / "runs" / "tiny" / "report.html").is_file()

"""Every command of README.md and docs/*.md is typed as it stands, with small budgets behind it.

A command is read from an indented or fenced block, with its continued lines. What cannot run here
is parsed by the command line's own parser, and its configuration is resolved; `ELSEWHERE` says why.
"""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import call

from calibtrain.cli.main import app
from calibtrain.config import load_config, load_study, read_tree, ready_made

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {
    r"gs://": "needs a bucket: tests/bucket has an emulator",
    r"\$": "needs variables of a cluster",
    r" launch ": "needs a cluster: tests/launch",
    r" compile ": "needs a compiler for devices that are not here: tests/compilation",
    r" import |smollm2": "needs a model of a hub: tests/interchange makes its own",
    r"kjv-ablation": "takes an hour",
    r"leave-one-group-out": "needs a run on a corpus with groups: tests/posthoc",
    r"ablate quickstart": "takes minutes: tests/ablation, make quickstart",
    r"runs/dpo": "tests/finetuning prefers answers",
    r" STUDY ": "needs a study: tests/evaluation has one",
    r"tokenizer train CONFIG": "CONFIG is one of the reader's own",
    r"judged.csv": "needs texts that were judged: tests/analysis",
    r" config schema| measure |lm.eval": "tested with the command itself",
}
"""What of a command says that it is only parsed here, and why."""
SMALL = (
    *("model.width=24", "model.depth=1", "batch.rows=4", "context={tokens: 96}"),
    *("evaluation.times=1", "evaluation.bytes=1000", "evaluation.final_bytes=1000"),
    *("budget={steps: 3}", "tokenizer.vocab_size=290"),
    "corpus={name: markov, markov: {words: 24, successors: 4, bytes: 60000}}",
)
"""Settings that make a training short, put behind those that are typed."""
FEW = ("--prompts", "3", "--prefix", "16")
BEHIND = {
    "train": SMALL,
    "finetune": ("evaluation.bytes=1000", "evaluation.final_bytes=1000", "evaluation.times=1"),
    "ablate": (
        *(f"base.{item}" for item in SMALL if not item.startswith(("corpus", "tokenizer"))),
        "grid={tokenizer.vocab_size: [270, 280]}",
        "base.evaluation.event_bytes={byte: 300}",
        "controls={budget: as_given, parameters: as_given}",
    ),
    "evaluate": ("--bytes", "700"),
    "compare": ("--bytes", "700", "--steps", "3"),
    "fit": ("--bytes", "700", "--steps", "3"),
    "generate": ("--max-bytes", "40"),
    "trace": ("--max-bytes", "40"),
    "entropy": (*FEW, "--reference", "32", "--positions", "32", "--calibrate", "none"),
    "memory": (*FEW, "--generated", "32", "--positions", "20"),
    "typicality": (*FEW, "--generated", "32"),
    "qa": ("--candidates", "3"),
    "lookahead": ("--steps", "3", "--positions", "8", "--candidates", "4"),
}


def commands(document: Path) -> list[list[str]]:
    """The words of each command of calibtrain in a document, without its comment."""
    found = []
    for line in blocks(document.read_text(encoding="utf-8")):
        if re.match(r"(?:[A-Z_]+=\S+ )*calibtrain ", line):
            words = shlex.split(line, comments=True)
            found.append(words[words.index("calibtrain") :])
    return found


def blocks(text: str) -> Iterator[str]:
    """Lines of indented and fenced blocks; a line that ends in a backslash is one with the next."""
    fenced, kept = False, ""
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
            continue
        if kept or fenced or line.startswith("    "):
            kept += line.strip()
            if kept.endswith("\\"):
                kept = kept[:-1]
                continue
            yield kept
        kept = ""


def why_not(words: list[str]) -> str | None:
    """Why a command is only parsed here; None where it runs."""
    line = shlex.join(words) + " "
    return next((why for pattern, why in ELSEWHERE.items() if re.search(pattern, line)), None)


def is_typed(setting: str, words: list[str]) -> bool:
    """Whether a command sets what a setting sets, or a part of it, or what it is a part of."""
    key = setting.split("=")[0]
    typed = [word.split("=")[0] for word in words if "=" in word and not word.startswith("-")]
    return any(f"{key}.".startswith(f"{t}.") or f"{t}.".startswith(f"{key}.") for t in typed)


def parsed(words: list[str]) -> dict[str, Any]:
    """The parameters of a command, as the command line's own parser reads them."""
    command: Any = typer.main.get_command(app)
    context: Any = None
    rest = words[1:]
    while True:
        context = command.make_context(command.name, rest, parent=context)
        if not hasattr(command, "commands"):
            return dict(context.params)
        rest = [*context._protected_args, *context.args]
        command, rest = command.commands[rest[0]], rest[1:]


ALL = [(path.name, words) for path in DOCUMENTS for words in commands(path)]


def test_there_are_commands_in_the_documents() -> None:
    assert len(ALL) > 40
    assert {"README.md", "evaluation.md", "finetuning.md", "slurm.md"} <= {name for name, _ in ALL}
    text = (
        "    calibtrain a \\\n        --b 1   # why\n\ncalibtrain prose\n```\ncalibtrain c\n```\n"
    )
    assert [shlex.split(line, comments=True) for line in blocks(text)] == [
        ["calibtrain", "a", "--b", "1"],
        ["calibtrain", "c"],
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    ALL,
    ids=lambda value: value if isinstance(value, str) else " ".join(value)[11:60],
)
def test_every_command_is_one_and_its_configuration_is_right(
    name: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    found = parsed(words)
    config = found.get("config")
    path = ready_made.found(config) if config else None
    if path and path.is_file() and "finetune" not in words:
        load = load_study if "grid" in read_tree(path) else load_config
        load(path, found.get("overrides") or ())
    elif path:  # of a fine-tuning; or one that a reader wrote
        assert path.is_file() or re.fullmatch(r"my\w*\.yaml|CONFIG", str(config))


@pytest.mark.long
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_can_run_here_works_as_typed(
    document: Path,
    tmp_path: Path,
    finished_run: Path,
    finished_lstm: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "my").mkdir()
    (tmp_path / "mine").mkdir()
    for path in DOCUMENTS[1:]:  # texts of one's own
        shutil.copy(path, tmp_path / "my" / f"{path.stem}.txt")
    for number in range(40):
        text = f"{number} men went up, and {number + 1} came down again from the mountain.\n"
        (tmp_path / "mine" / f"{number}.jsonl").write_text(
            f'{{"body": "{text.strip()}", "topic": "{number % 2}"}}\n'
        )
    (tmp_path / "chapter.txt").write_text("And it came to pass in those days. " * 8)
    labels = [f'{{"text": "{n} men went up", "label": "{"ab"[n % 2]}"}}\n' for n in range(8)]
    (tmp_path / "labelled.jsonl").write_text("".join(labels))
    asked = [
        f'{{"question": "{n}", "choices": ["so", "not"], "answer": {n % 2}}}\n' for n in range(8)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(asked))
    ran = 0
    for words in commands(document):
        if why_not(words) is not None:
            continue
        words = [word.replace("runs/quickstart/ARM", "runs/tiny") for word in words]
        words = ["runs/tiny" if word == "RUN" else word for word in words]
        trains = "train" in words
        for named in ("runs/tiny", "runs/lstm"):  # as the command of another document left it
            wanted = any(named in word for word in words) and not trains
            if wanted and not (tmp_path / named).exists():
                shutil.copytree(finished_run if named.endswith("tiny") else finished_lstm, named)
        more = [item for key, items in BEHIND.items() if key in words[1:3] for item in items]
        more = [item for item in more if not is_typed(item, words)]
        done = call(*words[1:], *more)
        assert done.returncode == 0, f"{shlex.join([*words, *more])}: {done.stderr}"
        ran += 1
    assert ran or document.name not in ("README.md", "evaluation.md", "finetuning.md")

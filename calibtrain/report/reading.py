"""Read a run or a study folder into `results`; a file that does not fit ends in one clear line."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibtrain.errors import UserError
from calibtrain.report.results import (
    Arm,
    Bin,
    Corpus,
    Decile,
    Evaluation,
    HeldFixed,
    Measured,
    Memory,
    Parameters,
    Run,
    Split,
    Study,
    Summary,
    Tokenizer,
)

FORMAT = 1


class _Record:
    """One JSON object of a file, read key by key; what does not fit names the file and the key."""

    def __init__(self, source: str, data: Any) -> None:
        if not isinstance(data, dict):
            raise UserError(f"{source} is damaged: an object was expected, not {_kind(data)}")
        self.source = source
        self.data: dict[str, Any] = data

    def _get(self, key: str, kinds: tuple[type, ...], wanted: str) -> Any:
        if key not in self.data:
            raise UserError(f"{self.source} is damaged: key {key!r} is missing")
        value = self.data[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise UserError(f"{self.source} is damaged: {key!r} is {_kind(value)}, not {wanted}")
        return value

    def number(self, key: str) -> float:
        return self._get(key, (int, float), "a number")

    def whole(self, key: str) -> int:
        return self._get(key, (int,), "a whole number")

    def text(self, key: str) -> str:
        return self._get(key, (str,), "a text")

    def flag(self, key: str) -> bool:
        return self._get(key, (bool,), "true or false")

    def mapping(self, key: str) -> dict[str, Any]:
        return self._get(key, (dict,), "an object")

    def record(self, key: str) -> "_Record":
        return _Record(f"{self.source} ({key})", self.mapping(key))

    def records(self, key: str) -> list["_Record"]:
        items = self._get(key, (list,), "a list")
        return [_Record(f"{self.source} ({key} {i})", item) for i, item in enumerate(items, 1)]

    def maybe_number(self, key: str) -> float | None:
        return None if self.data.get(key) is None else self.number(key)

    def maybe_whole(self, key: str) -> int | None:
        return None if self.data.get(key) is None else self.whole(key)

    def maybe_text(self, key: str) -> str | None:
        return None if self.data.get(key) is None else self.text(key)

    def numbers(self) -> dict[str, float]:
        """Every number of the object; texts, tables and nulls are left out."""
        return {
            key: value
            for key, value in self.data.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a flag", type(None): "null"}
    return names.get(type(value), "a number")


def _contents(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _parse(path: Path, text: str) -> _Record:
    try:
        record = _Record(str(path), json.loads(text))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged: {error.msg} at line {error.lineno}") from None
    if record.data.get("format") != FORMAT:
        said = record.data.get("format")
        raise UserError(f"{path} has format {said!r}; this version reads format {FORMAT}")
    return record


# --- a run ---------------------------------------------------------------------------------------


def read_run(folder: Path) -> Run:
    """The run in `folder`: run.json, metrics.jsonl and evaluations/*.json of tokens."""
    path = folder / "run.json"
    record = _parse(path, _contents(path))
    corpus, tokenizer = record.record("corpus"), record.record("tokenizer")
    parameters, memory = record.record("parameters"), record.record("memory")
    splits = corpus.record("splits")
    metrics = folder / "metrics.jsonl"
    # A run that has only just begun has not written a line yet.
    begun = metrics.exists() or record.text("status") == "done"
    training, measured = _read_metrics(metrics) if begun else ((), ())
    files = sorted((folder / "evaluations").glob("*.json"))
    return Run(
        name=record.text("name"),
        status=record.text("status"),
        step=record.whole("step"),
        steps=record.whole("steps"),
        version=record.text("version"),
        jax=record.text("jax"),
        device=record.text("device"),
        config_hash=record.text("config_hash"),
        corpus=Corpus(
            name=corpus.text("name"),
            source=corpus.text("source"),
            version=corpus.text("version"),
            content_hash=corpus.text("content_hash"),
            splits={
                name: Split(
                    splits.record(name).whole("documents"), splits.record(name).whole("bytes")
                )
                for name in splits.data
            },
            entropy_bits_per_byte=corpus.maybe_number("entropy_bits_per_byte"),
        ),
        tokenizer=Tokenizer(
            kind=tokenizer.text("kind"),
            vocab_size=tokenizer.whole("vocab_size"),
            hash=tokenizer.text("hash"),
            bytes_per_token=tokenizer.maybe_number("bytes_per_token"),
        ),
        context_tokens=record.whole("context_tokens"),
        parameters=Parameters(
            *(parameters.whole(key) for key in ("embedding", "unembedding", "body", "total"))
        ),
        budget=record.record("budget").numbers(),
        memory=Memory(
            *(
                memory.maybe_number(key)
                for key in ("parameters", "optimizer", "peak_temporary", "logits")
            )
        ),
        seconds=record.maybe_number("seconds"),
        error=record.maybe_text("error"),
        training=training,
        measured=measured,
        evaluations=tuple(each for file in files if (each := _read_evaluation(file))),
        raw=record.data,
    )


def _read_evaluation(path: Path) -> Evaluation | None:
    """An evaluation of tokens; None for one of other events, which the page does not show yet."""
    record = _parse(path, _contents(path))
    if record.data.get("event", "token") != "token":
        return None
    values = record.numbers()
    for key in ("ece", "signed_gap", "bits_per_byte", "bytes"):
        record.number(key)
    return Evaluation(
        corpus=record.text("corpus"),
        split=record.text("split"),
        step=record.whole("step"),
        documents=record.whole("documents"),
        bins=record.whole("bins"),
        values=values,
        reliability=tuple(
            Bin(
                lower=row.number("lower"),
                upper=row.number("upper"),
                tokens=row.number("tokens"),
                confidence=row.maybe_number("confidence"),
                accuracy=row.maybe_number("accuracy"),
            )
            for row in record.records("reliability")
        ),
        deciles=tuple(
            Decile(
                decile=row.whole("decile"),
                tokens=row.number("tokens"),
                ece=row.maybe_number("ece"),
                signed_gap=row.maybe_number("signed_gap"),
            )
            for row in record.records("frequency_deciles")
        ),
        raw=record.data,
    )


def _read_metrics(path: Path) -> tuple[tuple[Measured, ...], tuple[Measured, ...]]:
    """The training lines and the evaluation lines, each in the order of their steps."""
    text = _contents(path)
    lines = text.split("\n")
    # A line without its newline is still being written by a live run.
    whole = lines[:-1]
    training: dict[int, Measured] = {}
    measured: dict[int, Measured] = {}
    for i, line in enumerate(whole, 1):
        if not line.strip():
            continue
        try:
            record = _Record(f"{path} (line {i})", json.loads(line))
        except json.JSONDecodeError as error:
            raise UserError(f"{path} is damaged: {error.msg} at line {i}") from None
        kind, prefix = (
            (measured, "eval/")
            if any(key.startswith("eval/") for key in record.data)
            else (training, "train/")
        )
        step = record.whole("step")
        kind[step] = Measured(
            step=step,
            tokens=record.maybe_number("train/tokens"),
            bytes=record.maybe_number("train/bytes"),
            values={
                key.removeprefix(prefix): value
                for key, value in record.numbers().items()
                if key.startswith(prefix)
            },
        )
    return (
        tuple(training[step] for step in sorted(training)),
        tuple(measured[step] for step in sorted(measured)),
    )


# --- a study -------------------------------------------------------------------------------------


def read_study(folder: Path) -> Study:
    """The study in `folder`: ablation.json and the run folder of every arm."""
    path = folder / "ablation.json"
    text = _contents(path)
    record = _parse(path, text)
    arms = tuple(_read_arm(folder, arm) for arm in record.records("arms"))
    names = tuple(dict.fromkeys(name for arm in arms for name in arm.evaluations))
    return Study(
        title=record.text("title"),
        version=record.text("version"),
        command=record.text("command"),
        controls=record.mapping("controls"),
        grid=record.mapping("grid"),
        held_fixed=tuple(
            HeldFixed(
                quantity=row.text("quantity"),
                rule=row.text("rule"),
                unit=row.maybe_text("unit") or "",
                smallest=row.data.get("smallest"),
                largest=row.data.get("largest"),
                held=row.flag("held"),
            )
            for row in record.records("held_fixed")
        ),
        arms=arms,
        summary=tuple(
            Summary(
                settings=row.mapping("settings"),
                evaluation=row.text("evaluation"),
                seeds=row.whole("seeds"),
                mean=row.record("mean").numbers(),
                half_width=row.record("half_width").numbers(),
            )
            for row in record.records("summary")
        ),
        evaluations=names,
        main=_main(names),
        text=text,
    )


def _read_arm(study: Path, record: _Record) -> Arm:
    folder = study / record.text("folder")
    status = record.text("status")
    evaluations = record.record("evaluations")
    run = read_run(folder) if status == "done" else _remains(folder)
    flat = {name: evaluations.record(name) for name in evaluations.data}
    scored = {} if run is None else {name: _behind(name, flat[name], run) for name in flat}
    return Arm(
        name=record.text("name"),
        settings=record.mapping("settings"),
        status=status,
        error=record.maybe_text("error"),
        vocab_size=record.maybe_whole("vocab_size"),
        evaluations={name: row.numbers() for name, row in flat.items()},
        run=run,
        scored={name: found for name, found in scored.items() if found is not None},
    )


def _remains(folder: Path) -> Run | None:
    """What is left of an arm that did not finish, which may be anything or nothing."""
    try:
        return read_run(folder)
    except UserError:
        return None


def _behind(name: str, flat: _Record, run: Run) -> Evaluation | None:
    """The latest evaluation file of an arm for one of the evaluations its study names."""
    corpus, split = flat.data.get("corpus"), flat.data.get("split")
    wanted = _slug(f"{corpus}-{split}" if corpus and split else name)
    found = [e for e in run.evaluations if _slug(f"{e.corpus}-{e.split}") == wanted]
    return max(found, key=lambda e: e.step, default=None)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _main(names: tuple[str, ...]) -> str:
    for split in ("test", "validation"):
        for name in names:
            if name.rsplit("-", 1)[-1] == split:
                return name
    return names[0] if names else ""


def results_of_run(run: Run) -> Mapping[str, Any]:
    """run.json and every evaluation, as they were read: what the page of a run carries along."""
    return {"run": run.raw, "evaluations": [evaluation.raw for evaluation in run.evaluations]}

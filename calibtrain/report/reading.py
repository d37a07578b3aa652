"""Read a run or a study folder into `results`; a file that does not fit ends in one clear line."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibtrain.errors import UserError
from calibtrain.report.evaluation_file import event_of, read_evaluation
from calibtrain.report.head_comparison import read_heads
from calibtrain.report.json_record import Record, contents, document
from calibtrain.report.results import (
    Arm,
    Corpus,
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
from calibtrain.report.uncertainty import student
from calibtrain.storage.metrics import is_evaluation, read_metrics

_SAME = ("step", "corpus_hash", "limit", "temperature", "bins")
"""What tells evaluations of one corpus and split apart."""

# --- a run ---------------------------------------------------------------------------------------


def read_run(folder: Path) -> Run:
    """The run in `folder`: run.json, metrics.jsonl and every evaluations/*.json."""
    path = folder / "run.json"
    record = document(path)
    corpus, tokenizer = record.record("corpus"), record.record("tokenizer")
    parameters, memory = record.record("parameters"), record.record("memory")
    splits = corpus.record("splits")
    metrics = folder / "metrics.jsonl"
    # A run that has only just begun has not written a line yet.
    # An imported model never writes one.
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
        evaluations=tuple(read_evaluation(file) for file in files),
        raw=record.data,
        heads=read_heads(folder),
    )


def _read_metrics(path: Path) -> tuple[tuple[Measured, ...], tuple[Measured, ...]]:
    """The training lines and the evaluation lines, each in the order of their steps."""
    try:
        lines = read_metrics(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    training: dict[int, Measured] = {}
    measured: dict[int, Measured] = {}
    for i, line in enumerate(lines, 1):
        record = Record(f"{path} (line {i})", line)
        kind, prefix = (measured, "eval/") if is_evaluation(line) else (training, "train/")
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
    record, text = document(path), contents(path)
    arms = tuple(_read_arm(folder, arm) for arm in record.records("arms"))
    named = dict.fromkeys(name for arm in arms for name in arm.evaluations)
    events = {n: arm.scored[n].event for arm in arms for n in arm.scored}
    names = tuple(name for name in named if events.get(name, "token") == "token")
    main = _main(names)
    others = _others_by_event(named, events, main)
    summary = [_read_summary(row) for row in record.records("summary")]
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
        summary=(
            *(row for row in summary if row.evaluation in names),
            *_summarised(arms, [name for found in others.values() for name in found]),
        ),
        evaluations=names,
        by_event=others,
        main=main,
        text=text,
    )


def _read_arm(study: Path, record: Record) -> Arm:
    folder = study / record.text("folder")
    status = record.text("status")
    evaluations = record.record("evaluations")
    run = read_run(folder) if status == "done" else _remains(folder)
    every = {name: evaluations.record(name) for name in evaluations.data}
    flat = {name: row for name, row in every.items() if event_of(row) == "token"}
    behind = {} if run is None else {name: _behind(name, flat[name], run) for name in flat}
    others = {} if run is None or status != "done" else _of_other_events(run)
    return Arm(
        name=record.text("name"),
        settings=record.mapping("settings"),
        status=status,
        error=record.maybe_text("error"),
        vocab_size=record.maybe_whole("vocab_size"),
        evaluations={name: row.numbers() for name, row in flat.items()}
        | {name: found.values for name, found in others.items()},
        run=run,
        scored={name: found for name, found in behind.items() if found is not None} | others,
    )


def _read_summary(row: Record) -> Summary:
    return Summary(
        settings=row.mapping("settings"),
        evaluation=row.text("evaluation"),
        seeds=row.whole("seeds"),
        mean=row.record("mean").numbers(),
        half_width=row.record("half_width").numbers(),
    )


# --- evaluations of other events: from their own files, as ablation.json need not hold them ------


def _of_other_events(run: Run) -> dict[str, Evaluation]:
    """An arm's latest evaluation of each event but the token, of the most text, by its name."""
    found: dict[str, Evaluation] = {}
    for evaluation in sorted(run.evaluations, key=lambda e: (e.step, e.values["bytes"])):
        if evaluation.event != "token":
            parts = (f"{evaluation.corpus}-{evaluation.split}", evaluation.tempered)
            found[f"{', '.join(filter(None, parts))} by {evaluation.event}"] = evaluation
    return found


def _others_by_event(
    names: Iterable[str], events: Mapping[str, str], main: str
) -> dict[str, tuple[str, ...]]:
    """Names of evaluations by their event; first the one of the text that the page is about."""
    found: dict[str, list[str]] = {}
    for name in names:
        if (event := events.get(name, "token")) != "token":
            found.setdefault(event, []).append(name)
    return {
        event: tuple(sorted(each, key=lambda name: name != f"{main} by {event}"))
        for event, each in found.items()
    }


def _summarised(arms: Sequence[Arm], names: Sequence[str]) -> list[Summary]:
    """Means and intervals over the seeds of each combination of settings."""
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        rest = {key: value for key, value in arm.settings.items() if key != "seed"}
        groups.setdefault(json.dumps(rest, sort_keys=True), []).append(arm)
    rows = []
    for settings, members in groups.items():
        for name in names:
            found = [arm.evaluations[name] for arm in members if name in arm.evaluations]
            keys = [k for k in (found[0] if found else {}) if all(k in other for other in found)]
            spread = {key: student([values[key] for values in found]) for key in keys}
            if found:
                rows.append(
                    Summary(
                        settings=json.loads(settings),
                        evaluation=name,
                        seeds=len(found),
                        mean={key: mean for key, (mean, _) in spread.items()},
                        half_width={k: half for k, (_, half) in spread.items() if half is not None},
                    )
                )
    return rows


def _remains(folder: Path) -> Run | None:
    """What is left of an arm that did not finish, which may be anything or nothing."""
    try:
        return read_run(folder)
    except UserError:
        return None


def _behind(name: str, flat: Record, run: Run) -> Evaluation | None:
    """The evaluation file of an arm for one of the evaluations its study names.

    Files of the same corpus and split may be of another amount of text or another temperature: the
    one meant agrees in all that both say.
    """
    corpus, split = flat.data.get("corpus"), flat.data.get("split")
    wanted = _slug(f"{corpus}-{split}" if corpus and split else name)
    same = {key: flat.data[key] for key in _SAME if key in flat.data}
    found = [
        e
        for e in run.of_tokens
        if _slug(f"{e.corpus}-{e.split}") == wanted
        and all(e.raw.get(key, value) == value for key, value in same.items())
    ]
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
    heads = {} if run.heads is None else {"heads": run.heads.raw}
    found = [evaluation.raw for evaluation in run.evaluations]
    return {"run": run.raw, "evaluations": found, **heads}

"""The model card of an exported run: a README.md with the front matter that Hugging Face reads."""

import re
from collections.abc import Sequence

import calibtrain
from calibtrain.config import Config, to_yaml
from calibtrain.config.yaml_text import write_yaml
from calibtrain.metrics.quantities import NOTHING, QUANTITIES
from calibtrain.runs.evaluation_records import EvaluationRecord
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.records import RunRecord
from calibtrain.storage.documents import FORMAT

MODEL_CARD = "README.md"

_LIMITS = (
    "Calibration is a property of a model on a text. The figures hold for the corpora named above; "
    "on other text, and after fine-tuning, prompting or sampling at another temperature, measure "
    "it again.",
    "An ECE or a gap of tokens does not compare models with different vocabularies. Bits per byte "
    "do, and so do figures of events that are bytes or words.",
    "Intervals are over the documents that were scored, for these parameters. They say nothing of "
    "other seeds.",
    "It is a research model: its text was not filtered, and what it generates was not assessed.",
)


def model_card(
    folder: RunFolder, step: int, architecture: str, context: int, notes: Sequence[str]
) -> str:
    """Returns the model card of a run's checkpoint, in Markdown.

    Args:
        folder: the run.
        step: of the checkpoint; evaluations of other steps are left out, and so are those at a
            temperature, which the exported model does not have.
        architecture: name of its class in transformers.
        context: tokens that it reads at most.
        notes: what the format cannot express.

    Raises:
        UserError: where an evaluation of the run is damaged.
    """
    run, config = folder.require_summary(), folder.read_config()
    evaluations = [
        EvaluationRecord.read(path) for path in sorted(folder.evaluations.glob("*.json"))
    ]
    measured = [e for e in evaluations if e.step == step and not e.tempered]
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["calibration", "calibtrain"],
    }
    parts = [
        f"---\n{write_yaml(front)}---",
        f"# {_text(run.name)}",
        _facts(run, step, architecture, context),
        "## Calibration",
        *(map(_calibration, measured) if measured else [_NOT_MEASURED]),
        "## How it was made",
        _made(run, config, step),
        "## Limits",
        "\n".join(f"- {each}" for each in (*_LIMITS, *map(_text, notes))),
    ]
    return "\n\n".join(parts) + "\n"


_NOT_MEASURED = (
    "Not measured: the run has no evaluation of this checkpoint. `calibtrain evaluate RUN` makes "
    "one, and another export then shows it."
)


def _facts(run: RunRecord, step: int, architecture: str, context: int) -> str:
    corpus, tokenizer, budget = run.corpus, run.tokenizer, run.budget
    rows = [
        ("Architecture", f"{architecture}, {run.parameters.total:,} parameters"),
        ("Context", f"{context:,} tokens"),
        ("Vocabulary", f"{tokenizer.vocab_size:,} ({tokenizer.kind}, hash `{tokenizer.hash}`)"),
        ("Corpus", f"{_text(corpus.name)}: {_text(corpus.source)} (hash `{corpus.content_hash}`)"),
    ]
    if train := corpus.splits.get("train"):
        size = f"{train.documents:,} documents, {train.bytes:,} bytes"
        rows.append(("Its training split", size))
    if run.imported is None:
        read = [f"{step:,} of {run.steps:,} steps"]
        if budget.bytes and step == run.steps:
            read.append(f"{budget.bytes:,.0f} bytes of text")
        rows.append(("Trained for", ", ".join(read)))
    rows.append(("Made by", f"calibtrain {run.version}, run `{run.config_hash}`"))
    return _table(("", ""), rows)


def _calibration(e: EvaluationRecord) -> str:
    """Returns what one evaluation measured: figures, 95 % intervals, and how each was made."""
    signatures = e.signatures or {}
    rows = []
    for key, quantity in QUANTITIES.items():
        value = e.get(key)
        if not isinstance(value, float) or key not in signatures:
            continue
        interval = e.interval(key)
        ends = [quantity.show(x) for x in (interval.lower, interval.upper)] if interval else []
        shown = f"{ends[0]} to {ends[1]}" if interval else NOTHING
        name = f"{quantity.name} ({quantity.unit_of(e.event)})"
        rows.append((name, quantity.show(value), shown, _code(signatures[key])))
    scored = f"{e.documents:,} documents, {e.bytes:,.0f} bytes"
    notes = "".join(f"\n\nNote: {_text(note)}" for note in e.notes or ())
    return (
        f"### {_text(e.corpus)}, {e.split} split, by {e.event}\n\n"
        f"Events are the next {e.event}s; {scored}.{notes}\n\n"
        + _table(("figure", "value", "95 % interval", "signature"), rows)
    )


def _made(run: RunRecord, config: Config, step: int) -> str:
    if run.imported is not None:
        how = "The parameters were imported by calibtrain, and not trained further."
        if source := run.imported.get("from"):
            how = f"The parameters were imported by calibtrain from `{_text(str(source))}`."
        return f"{how} They were written again by `calibtrain export`."
    command = "finetune" if config.finetune is not None else "train"
    how = (
        f"By `calibtrain {command}` with this configuration (seed {config.seed}), and written by "
        f"`calibtrain export` (calibtrain {calibtrain.__version__}, format {FORMAT})."
    )
    return (
        f"{how}\n\n<details><summary>The configuration</summary>\n\n"
        f"```yaml\n{to_yaml(config)}```\n\n</details>"
    )


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(each) + " |" for each in lines)


def _code(text: str) -> str:
    """Returns a text as code in a cell of a table, where a bar is escaped even in code."""
    return "`" + text.replace("|", r"\|") + "`"


def _text(text: str) -> str:
    """Returns a text of the user's as it is read in a line or cell of Markdown."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))

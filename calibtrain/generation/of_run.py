"""Texts of a run: opened, generated from, and their trace kept beside it."""

import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from calibtrain.errors import UserError
from calibtrain.generation.beam import BeamSearch
from calibtrain.generation.beam_texts import BeamText, beam_texts
from calibtrain.generation.generate import GeneratedText, generate
from calibtrain.generation.language_model import WEIGHTS, LanguageModel
from calibtrain.generation.lookahead_head import read_head
from calibtrain.generation.samplers import ANCESTRAL, Sampling
from calibtrain.runs.latest_checkpoint import checkpoint_facts
from calibtrain.runs.loading import SavedRun, opened
from calibtrain.runs.traces import TraceRecord
from calibtrain.storage.compiled import use_compiled_programs
from calibtrain.storage.places import place

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")


@dataclasses.dataclass(frozen=True)
class Generation:
    """The texts of a request, and what is said of the whole.

    Attributes:
        texts: in the order of their numbers.
        record: their trace.
        path: the file that holds the trace; None where it is not kept.
        seconds: that drawing took, programs compiled included.
    """

    texts: tuple[GeneratedText, ...]
    record: TraceRecord
    path: Path | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        return {
            **self.record.about,
            "trace": None if self.path is None else str(self.path),
            "texts": list(map(fields_of, self.texts)),
        }

    @property
    def notes(self) -> list[str]:
        """What is to be said of prompts that the model did not see whole."""
        return prompt_notes(self.texts, self.record.about["context"])


_FIELDS = (
    "text",
    "finish_reason",
    "prompt_tokens",
    "prompt_tokens_seen",
    "tokens",
    "bytes",
    "information_bits",
    "entropy_bits",
)


def fields_of(text: GeneratedText | BeamText) -> dict[str, Any]:
    """Returns what `--json` prints of a text, however it was found."""
    return {name: getattr(text, name) for name in _FIELDS}


def prompt_notes(texts: Sequence[GeneratedText | BeamText], context: int) -> list[str]:
    """Returns what is to be said of prompts that the model did not see whole."""
    found = {
        f"the prompt has {text.prompt_tokens:,} tokens (the document start included), and the "
        f"model saw the last {text.prompt_tokens_seen:,}: its context is {context:,}"
        for text in texts
        if text.prompt_tokens_seen < text.prompt_tokens
    }
    return sorted(found)


def generate_from_run(
    path: Path,
    prompts: Sequence[str | bytes],
    *,
    head: str | None = None,
    samples: int = 1,
    seed: int = 0,
    sampling: Sampling = ANCESTRAL,
    weights: str | None = None,
    save: str | None = None,
    replace: bool = False,
    say: Callable[[str], None] = lambda text: None,
    **limits: Any,
) -> Generation:
    """Returns texts that a run's latest checkpoint generates (`generate` has the other arguments).

    Args:
        path: the run folder.
        prompts: texts, or bytes.
        head: the name of a fitted head that divides the logits.
        samples: texts of each prompt.
        seed: of the request.
        sampling: how tokens are chosen.
        weights: the type that weights are kept in, one of `WEIGHTS`; None means that of the run.
        save: the name under which the trace is kept in the run's `traces/`.
        replace: whether a trace of that name may be replaced.
        say: is told in words what the user must know.
        limits: as for `generate`.

    Raises:
        UserError: where the run, its head or the name of the trace cannot be had, or for weights
            that are not known.
    """
    if weights not in (None, *WEIGHTS):
        raise UserError(f"weights: {weights!r} is not allowed; allowed: {', '.join(WEIGHTS)}")
    with opened(path, temperature=head, say=say) as saved:
        target = trace_file(saved, save, replace)
        use_compiled_programs(saved.cache)
        model = LanguageModel.of(saved)
        if weights is not None:
            model = model.with_weights(weights)
        return generate_and_keep(
            saved, model, prompts, target, samples=samples, seed=seed, sampling=sampling, **limits
        )


def generate_and_keep(
    saved: SavedRun,
    model: LanguageModel,
    prompts: Sequence[str | bytes],
    target: Path | None,
    *,
    samples: int = 1,
    seed: int = 0,
    sampling: Sampling = ANCESTRAL,
    **limits: Any,
) -> Generation:
    """Returns texts of a run that is open, and keeps their trace in a file, if one is given."""
    if sampling.lookahead_head is not None:
        head, _ = read_head(
            saved.run.path,
            sampling.lookahead_head,
            checkpoint=checkpoint_facts(saved.run, saved.config),
            temperature=saved.head,
        )
        model = dataclasses.replace(model, lookahead=head)
    began = time.perf_counter()
    texts = generate(model, prompts, samples=samples, seed=seed, sampling=sampling, **limits)
    seconds = time.perf_counter() - began
    about = {
        **model.about,
        "context": model.context,
        "seed": seed,
        "samples": samples,
        "sampling": sampling.described,
    }
    record = TraceRecord.of([text.trace for text in texts], about)
    return Generation(tuple(texts), record, keep_trace(saved, record, target), seconds)


def trace_file(saved: SavedRun, name: str | None, replace: bool) -> Path | None:
    """Returns the file that a trace of this name is to be kept in; None without a name.

    Raises:
        UserError: for a name that is not allowed, or taken.
    """
    return kept_file(saved.run.traces, name, replace)


def kept_file(
    folder: Path, name: str | None, replace: bool, suffix: str = ".parquet"
) -> Path | None:
    """Returns the file of a folder that something of this name is to be kept in; None without one.

    Raises:
        UserError: for a name that is not allowed, or taken.
    """
    if name is None:
        return None
    target = folder / f"{_checked(name)}{suffix}"
    if target.exists() and not replace:
        raise UserError(f"--save: {name} is there already ({target}); take another, or --replace")
    return target


def keep_trace(saved: SavedRun, record: TraceRecord, target: Path | None) -> Path | None:
    """Writes a trace into its run; returns the file, None where none was asked for or written."""
    if target is not None:
        with saved.writing():
            record.write(target)
            return target
    return None


def search_from_run(
    path: Path,
    prompts: Sequence[str | bytes],
    search_by: BeamSearch,
    *,
    head: str | None = None,
    max_tokens: int | None = None,
    max_bytes: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[list[list[BeamText]], dict[str, Any]]:
    """Returns the hypotheses of each prompt, the best first, and what is said of the request.

    Raises:
        UserError: where the run or its head cannot be had, or the vocabulary cannot spell a prompt.
    """
    with opened(path, temperature=head, say=say) as saved:
        use_compiled_programs(saved.cache)
        model = LanguageModel.of(saved)
        found = beam_texts(model, prompts, search_by, max_tokens=max_tokens, max_bytes=max_bytes)
        about = {**model.about, "context": model.context, **dataclasses.asdict(search_by)}
    return found, about


def read_trace(path: Path, name: str) -> TraceRecord:
    """Returns a trace that is kept beside a run.

    Raises:
        UserError: where there is none of that name; it names those that there are.
    """
    folder = place(path) / "traces"
    file = folder / f"{_checked(name)}.parquet"
    if not file.exists():
        found = ", ".join(sorted(each.stem for each in folder.glob("*.parquet"))) or "none yet"
        raise UserError(f"{path}: has no trace {name}; there are: {found}")
    return TraceRecord.read(file)


def _checked(name: str) -> str:
    if _NAME.fullmatch(name):
        return name
    raise UserError(
        f"--save: {name!r} is not allowed; a letter or digit, then at most 79 letters, digits and "
        ". _ + -"
    )

"""Texts of a run: opened, generated from, and their trace kept beside it."""

import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from calibtrain.errors import UserError
from calibtrain.generation.generate import GeneratedText, generate
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.samplers import ANCESTRAL, Sampling
from calibtrain.runs.loading import opened
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
        names = (
            "text",
            "finish_reason",
            "prompt_tokens",
            "prompt_tokens_seen",
            "tokens",
            "bytes",
            "information_bits",
            "entropy_bits",
        )
        return {
            **self.record.about,
            "trace": None if self.path is None else str(self.path),
            "texts": [{name: getattr(text, name) for name in names} for text in self.texts],
        }

    @property
    def notes(self) -> list[str]:
        """What is to be said of prompts that the model did not see whole."""
        found = {
            f"the prompt has {text.prompt_tokens:,} tokens (the document start included), and the "
            f"model saw the last {text.prompt_tokens_seen:,}: its context is "
            f"{self.record.about['context']:,}"
            for text in self.texts
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
        save: the name under which the trace is kept in the run's `traces/`.
        replace: whether a trace of that name may be replaced.
        say: is told in words what the user must know.
        limits: as for `generate`.

    Raises:
        UserError: where the run, its head or the name of the trace cannot be had.
    """
    with opened(path, temperature=head, say=say) as saved:
        target = None if save is None else saved.run.traces / f"{_checked(save)}.parquet"
        if target is not None and target.exists() and not replace:
            raise UserError(
                f"--save: {save} is there already ({target}); take another, or --replace"
            )
        use_compiled_programs(saved.cache)
        model = LanguageModel.of(saved)
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
        kept = None
        if target is not None:
            with saved.writing():
                record.write(target)
                kept = target
    return Generation(tuple(texts), record, kept, seconds)


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

"""The analyses that a run can be asked for: of its entropy, generations, layers and answers."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibtrain.errors import UserError
from calibtrain.library.analysis_results import (
    EntropyAnalysis,
    FittedLookahead,
    LensAnalysis,
    MemoryAnalysis,
    QuestionAnalysis,
    Traced,
    TypicalityAnalysis,
)
from calibtrain.library.heads import Head
from calibtrain.library.progress import Callback, Shown, counted, said, shown
from calibtrain.storage.places import place


class Analysing:
    """The analyses that a run can be asked for: `Run` has them.

    Attributes:
        folder: where the run is.
    """

    folder: Path

    @contextlib.contextmanager
    def _opened(
        self,
        what: str,
        progress: Shown,
        head: str | Head | None,
        corpus: str | None = None,
        split: str = "test",
    ) -> Iterator[Any]:
        """Opens the run to be analysed, and tells what is done."""
        from calibtrain.analysis.of_run import opened_to_analyse

        with (
            shown(progress, what) as tell,
            opened_to_analyse(
                self.folder,
                corpus=corpus,
                split=split,
                head=_name(head),
                progress=_Counted(tell),
                say=said,
            ) as run,
        ):
            yield run

    def entropy(
        self,
        corpus: str | None = None,
        split: str = "test",
        *,
        calibrate: str = "both",
        head: str | Head | None = None,
        progress: Shown = "auto",
        **protocol: int,
    ) -> EntropyAnalysis:
        """Compares the entropy rate of generations with the cross entropy of text.

        The result is also written into the run's `analysis/`, as `calibtrain entropy` does.

        Args:
            corpus: whose documents are continued; None means the run's own.
            split: train, validation or test.
            calibrate: what is fitted and measured too: none, temperature, look-ahead or both.
            head: a head that was fitted to the run, or its name.
            progress: a callback; "auto" shows a bar, None nothing.
            protocol: prompts, samples, prefix, reference, positions, width, seed, fit_bytes,
                fit_positions, candidates (docs/entropy.md).

        Raises:
            UserError: for a number that is not allowed, documents that are too short, and as
                `evaluate` does.
        """
        from calibtrain.analysis.entropy import Protocol, measure_entropy

        asked = _protocol(Protocol, "entropy", protocol)
        with self._opened("entropy", progress, head, corpus, split) as run:
            found = measure_entropy(run, asked, calibrate=calibrate)
        return EntropyAnalysis(*found)

    def memory(
        self,
        corpus: str | None = None,
        split: str = "test",
        *,
        limited: "str | Path | Analysing | None" = None,
        head: str | Head | None = None,
        progress: Shown = "auto",
        **protocol: int,
    ) -> MemoryAnalysis:
        """Bounds how much generations depend on what is more than 1, 2, 4, ... tokens back.

        The result is also written into the run's `analysis/`, as `calibtrain memory` does.

        Args:
            corpus: whose documents are continued; None means the run's own.
            split: train, validation or test.
            limited: a run with a short context and the same tokenizer, to compare with.
            head: a head that was fitted to the run, or its name.
            progress: a callback; "auto" shows a bar, None nothing.
            protocol: prompts, prefix, generated, positions, longest, seed (docs/entropy.md).

        Raises:
            UserError: for a number that is not allowed, and as `evaluate` does.
        """
        from calibtrain.analysis.memory import Protocol, measure_memory

        other = limited.folder if isinstance(limited, Analysing) else limited
        asked = _protocol(Protocol, "memory", protocol)
        with self._opened("memory", progress, head, corpus, split) as run:
            found = measure_memory(run, asked, limited=None if other is None else place(other))
        return MemoryAnalysis(*found)

    def typicality(
        self,
        corpus: str | None = None,
        split: str = "test",
        *,
        scores: str | Path | None = None,
        judge: "str | Path | Analysing | None" = None,
        head: str | Head | None = None,
        progress: Shown = "auto",
        **protocol: int,
    ) -> TypicalityAnalysis:
        """Sets information minus entropy of human, sampled, greedy and beam text against quality.

        The result is also written into the run's `analysis/`, as `calibtrain typicality` does.

        Args:
            corpus: whose documents are continued; None means the run's own.
            split: train, validation or test.
            scores: a file with columns text and score.
            judge: a run, best a larger one, whose bits per byte judge the texts.
            head: a head that was fitted to the run, or its name.
            progress: a callback; "auto" shows a bar, None nothing.
            protocol: prompts, prefix, generated, beam, top_p, typical, seed (docs/entropy.md).

        Raises:
            UserError: for a number or file that is not allowed, and as `evaluate` does.
        """
        from calibtrain.analysis.typicality import Protocol, measure_typicality

        other = judge.folder if isinstance(judge, Analysing) else judge
        asked = _protocol(Protocol, "typicality", protocol)
        with self._opened("typicality", progress, head, corpus, split) as run:
            found = measure_typicality(
                run,
                asked,
                scores=None if scores is None else place(scores),
                judge=None if other is None else place(other),
            )
        return TypicalityAnalysis(*found)

    def fit_lookahead(
        self,
        name: str = "default",
        *,
        head: str | Head | None = None,
        bytes: int | None = None,
        replace: bool = False,
        progress: Shown = "auto",
        **recipe: int,
    ) -> FittedLookahead:
        """Fits a head that predicts what a look-ahead would read, as `calibtrain lookahead` does.

        Args:
            name: of the head from then on.
            head: a temperature head that was fitted to the run, or its name.
            bytes: about how many bytes of validation text, and of test text, are read; None means
                all.
            replace: whether a head of that name may be replaced.
            progress: a callback; "auto" shows a bar, None nothing.
            recipe: rank, steps, candidates, positions, seed (docs/entropy.md).

        Raises:
            UserError: for a number that is not allowed, a name that is taken, and as `evaluate`
                does.
        """
        from calibtrain.analysis.lookahead_head_fit import Recipe, fit_lookahead_head

        asked = _protocol(Recipe, "fit_lookahead", recipe)
        with self._opened("fitting a look-ahead", progress, head) as run:
            about, path = fit_lookahead_head(run, asked, name=name, replace=replace, limit=bytes)
        return FittedLookahead(name, about, path)

    def trace(
        self,
        prompt: str | bytes = "",
        *,
        text: str | bytes | None = None,
        head: str | Head | None = None,
        band: bool = True,
        corpus: str | None = None,
        false_alarms: float | None = None,
        save: str | None = None,
        replace: bool = False,
        sampling: Mapping[str, Any] | None = None,
        **limits: Any,
    ) -> Traced:
        """Traces a text: generated from a prompt, or given; with alarms, as `calibtrain trace`.

        Args:
            prompt: what a generated text begins with.
            text: is traced as it is, in place of generating.
            head: a head that was fitted to the run, or its name.
            band: whether it is compared with held-out text.
            corpus: whose validation split gives the band; None means the run's own.
            false_alarms: per 1,000 bytes of held-out text, of each test; None means 0.1.
            save: the name under which the trace is kept in the run's `traces/`.
            replace: whether a trace of that name may be replaced.
            sampling: how tokens are chosen, by the names of `generate`: `{"top_p": 0.9}`.
            limits: seed, max_bytes, max_tokens, stop and loop_stop, as for `generate`.

        Raises:
            UserError: for what is not allowed, and for a run, head or name that cannot be had.
        """
        from calibtrain.analysis.tracing import trace_run
        from calibtrain.generation.samplers import Sampling

        if text is not None and (prompt or sampling or limits):
            raise UserError(
                "text: is traced as it is; leave out prompt, sampling and the limits of generating"
            )
        if unknown := set(limits) - {"seed", "max_bytes", "max_tokens", "stop", "loop_stop"}:
            raise UserError(f"{sorted(unknown)[0]}: is not a setting of trace")
        try:
            found = trace_run(
                self.folder,
                prompt=prompt,
                text=text.encode() if isinstance(text, str) else text,
                head=_name(head),
                sampling=Sampling(**(sampling or {})),
                save=save,
                replace=replace,
                rate=false_alarms,
                corpus=corpus,
                reference=band,
                say=said,
                **limits,
            )
        except (TypeError, ValueError) as error:
            raise UserError(str(error)) from None
        for note in found.notes:
            said(f"note: {note}")
        return Traced(found)

    def lens(
        self,
        text: str | bytes | Sequence[str | bytes],
        labels: Sequence[str] | None = None,
        *,
        renyi: Sequence[float] = (),
        window: int | None = None,
        head: str | Head | None = None,
        progress: Shown = "auto",
        **protocol: int,
    ) -> LensAnalysis:
        """Gives the entropy of what each layer would predict, as `calibtrain lens` does.

        The result is also written into the run's `analysis/`.

        Args:
            text: to look into, or several.
            labels: of each text: how well are they told apart by the texts' profiles? None means
                that texts have none.
            renyi: orders of Renyi entropies that are computed too.
            window: tokens of each profile within a text; None means the whole text alone.
            head: a head that was fitted to the run, or its name; it reads every layer.
            progress: a callback; "auto" shows a bar, None nothing.
            protocol: neighbours, folds and seed of telling labels apart (docs/lens.md).

        Raises:
            UserError: for what is not allowed, and for a run or head that cannot be had.
        """
        from calibtrain.analysis.lens_of_run import LabelledText, look_into_run
        from calibtrain.analysis.separation import CrossValidation

        texts = [text] if isinstance(text, str | bytes) else list(text)
        if labels is not None and len(labels) != len(texts):
            raise UserError(f"labels: {len(labels)} are given for {len(texts)} texts")
        named = [LabelledText(*each) for each in zip(texts, labels or (), strict=False)]
        with shown(progress, "lens") as tell:
            found = look_into_run(
                self.folder,
                () if named else texts,
                labelled=named,
                renyi=renyi,
                window=window,
                head=_name(head),
                progress=_Counted(tell),
                say=said,
                by=_protocol(CrossValidation, "lens", protocol),
            )
        return LensAnalysis(found)

    def ask(
        self,
        questions: str | Path,
        *,
        corpus: str | None = None,
        head: str | Head | None = None,
        progress: Shown = "auto",
        **protocol: Any,
    ) -> QuestionAnalysis:
        """Asks questions with known answers, as `calibtrain qa` does.

        The result is also written into the run's `analysis/`.

        Args:
            questions: a file of JSON lines; or cloze, capitals or arithmetic.
            corpus: of cloze questions; None means the run's own.
            head: a head that was fitted to the run, or its name.
            progress: a callback; "auto" shows a bar, None nothing.
            protocol: templates, paraphrases, tokenisations, end, temperature, fit, bins, beam,
                max_bytes, count and seed (docs/questions.md).

        Raises:
            UserError: for what is not allowed, and for a run or head that cannot be had.
        """
        from calibtrain.analysis.question_candidates import Protocol
        from calibtrain.analysis.questions import ask_run

        with shown(progress, "questions") as tell:
            found = ask_run(
                self.folder,
                str(questions),
                corpus=corpus,
                head=_name(head),
                protocol=_protocol(Protocol, "ask", protocol),
                progress=_Counted(tell),
                say=said,
            )
        return QuestionAnalysis(found)


class _Counted:
    """Tells a callback how much of a stage is done."""

    def __init__(self, tell: Callback):
        self._count = counted(tell)

    def __call__(self, done: int, total: int) -> None:
        """Tells it."""
        self._count(done, total)

    def stage(self, text: str) -> None:
        """A stage is begun; the count begins anew by itself."""


def _name(head: str | Head | None) -> str | None:
    return head.name if isinstance(head, Head) else head


def _protocol(kind: Any, command: str, given: Mapping[str, Any]) -> Any:
    """Returns the protocol with what is given.

    Raises:
        UserError: for a name that it does not have.
    """
    known = kind.__dataclass_fields__
    if unknown := set(given) - set(known):
        raise UserError(
            f"{sorted(unknown)[0]}: is not a setting of {command}; there are {', '.join(known)}"
        )
    return kind(**given)

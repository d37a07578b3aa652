"""`Run`: the folder of a run, with everything that can be read of it and done with it."""

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibtrain.config import Config
from calibtrain.errors import UserError
from calibtrain.library.analyses import Analysing
from calibtrain.library.consistency_of_run import MeasuringConsistency
from calibtrain.library.generated import Generated
from calibtrain.library.heads import Head, HeadComparison
from calibtrain.library.progress import Shown, counted, log, said, shown
from calibtrain.library.result import EvaluationResult
from calibtrain.library.table import Table
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.records import RunRecord
from calibtrain.runs.results import RunResults, read_run
from calibtrain.storage.places import place

EVENTS = ("token", "byte", "word")
TOKENISATIONS = ("all", "canonical")


class Run(Analysing, MeasuringConsistency):
    """A run, trained or imported. It is read from its folder each time, while it trains too.

    Attributes:
        folder: where it is; or gs://BUCKET/PATH.
    """

    def __init__(self, folder: str | Path):
        """Args:
        folder: of a run that was begun.

        Raises:
            UserError: where the folder holds no run.
        """
        self.folder = place(folder)
        self._files = RunFolder(self.folder)
        self._files.read_config()

    # --- what is there ---------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        """Its configuration, every default written out."""
        return self._files.read_config()

    @property
    def record(self) -> RunRecord:
        """What run.json says: status, step, parameters by role, corpus, tokenizer, budget."""
        return self._files.require_summary()

    @property
    def status(self) -> str:
        """running, stopped, failed, done or imported; a run that was killed says running."""
        return self.record.status

    @property
    def metrics(self) -> Table:
        """The lines of metrics.jsonl: step, train/* and eval/*, where a line has them."""
        return Table.of_rows(self._files.read_metrics())

    @property
    def evaluations(self) -> tuple[EvaluationResult, ...]:
        """Every evaluation that was made of it, in training and afterwards, by split and step."""
        files = sorted(self._files.evaluations.glob("*.json"))
        found = [EvaluationResult.read(file) for file in files]
        return tuple(sorted(found, key=lambda each: (each.record.split, each.record.step)))

    @property
    def results(self) -> RunResults:
        """Its records, read together, as `figures.along_training` takes them."""
        return read_run(self.folder)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The temperature heads that were fitted to it and can be used, by name."""
        from calibtrain.posthoc.listing import describe_heads

        return tuple(Head(each) for each in describe_heads(self.folder) if each["usable"])

    # --- what can be done ------------------------------------------------------------------------

    def evaluate(
        self,
        corpus: str | None = None,
        split: str = "test",
        *,
        events: str = "token",
        bytes: int | None = None,
        temperature: str | Head | None = None,
        field: str | None = None,
        group: str | None = None,
        full: bool = False,
        tokenisations: str = "all",
        beam: int | None = None,
        ratio: float | None = None,
        progress: Shown = "auto",
    ) -> EvaluationResult:
        """Measures the latest checkpoint on a corpus, as `calibtrain evaluate` does.

        The result is also written into the run's `evaluations/`.

        Args:
            corpus: kjv, pydoc, stdlib, markov, files:GLOB or tfds:NAME[/CONFIG]; None means its
                own.
            split: train, validation or test.
            events: token; or byte or word, which compare between vocabularies and take longer.
            bytes: about how many bytes of text are scored; None means the whole split.
            temperature: a head that was fitted to the run, or its name.
            field: the field of the corpus's documents that holds the text.
            group: the field that names a document's group; "" means no groups.
            full: whether Full-ECE and classwise ECE are measured too, for token events.
            tokenisations: for byte and word events: all, by a beam; or canonical, those that the
                tokenizer itself writes, which is exact (for BPE).
            beam: how many tokenisations are followed, for byte and word events; default 5. With
                canonical ones, such a beam is measured beside them.
            ratio: one is given up below this share of the best one's weight; default 0.05.
            progress: a callback; "auto" shows a bar, None nothing.

        Raises:
            UserError: for a corpus, split or head that cannot be had, and for a run without a
                checkpoint or that another process is writing.
        """
        from calibtrain.data.corpora.named import Columns
        from calibtrain.evaluation.saved_run import evaluate_run, evaluate_run_on_text

        if events not in EVENTS:
            raise UserError(f"events: {events!r} is not allowed; allowed: {', '.join(EVENTS)}")
        if tokenisations not in TOKENISATIONS:
            allowed = ", ".join(TOKENISATIONS)
            raise UserError(f"tokenisations: {tokenisations!r} is not allowed; allowed: {allowed}")
        by_tokens = events == "token"
        if by_tokens and tokenisations != "all":
            raise UserError(f"tokenisations: {tokenisations} is for events byte and word")
        if by_tokens and (beam is not None or ratio is not None):
            raise UserError("beam, ratio: are for events byte and word; leave them out")
        if full and not by_tokens:
            raise UserError(f"full: is for events token, not {events}; leave one of them out")
        _require_positive(bytes)
        asked: dict[str, Any] = {
            "corpus": corpus,
            "columns": Columns(field, group),
            "split": split,
            "limit": bytes,
            "temperature": temperature.name if isinstance(temperature, Head) else temperature,
            "say": said,
        }
        with shown(progress, f"{events} events, {'batches' if by_tokens else 'bytes'}") as tell:
            asked["progress"] = counted(tell)
            if by_tokens:
                return EvaluationResult.of(evaluate_run(self.folder, **asked, full=full))
            asked |= {"events": events, "width": beam, "ratio": ratio}
            asked["tokenisations"] = tokenisations
            return EvaluationResult.of(evaluate_run_on_text(self.folder, **asked))

    def fit_head(
        self,
        kind: str,
        *,
        name: str | None = None,
        corpus: str | None = None,
        field: str | None = None,
        split: str = "validation",
        bytes: int | None = None,
        loss: str = "nll",
        alpha: float = 0.5,
        balanced: bool = False,
        settings: Mapping[str, Any] | None = None,
        steps: int = 500,
        learning_rate: float | None = None,
        seed: int = 0,
        keep: bool = True,
        replace: bool = False,
        progress: Shown = "auto",
    ) -> Head:
        """Fits a temperature head to the latest checkpoint, whose own parameters stay as they are.

        Args:
            kind: global, vector, matrix, low_rank_matrix, position, linear, mlp, adaptive or
                thermometer.
            name: of the head from then on; None means its kind, loss and corpus.
            corpus: the text to fit on; None means the run's own.
            field: the field of its documents that holds the text.
            split: validation or train.
            bytes: about how many bytes of it are read; None means the whole split.
            loss: nll or selective_smoothing.
            alpha: of selective smoothing.
            balanced: whether right and wrong tokens have half the weight each.
            settings: of the head, such as `{"hidden": 64}`.
            steps: of AdamW; a global head is fitted exactly for the nll.
            learning_rate: its peak; None means that of the kind.
            seed: of the first parameters and the order of the text.
            keep: whether the model's hidden states are kept in the cache, for the next head.
            replace: whether a head of that name may be replaced.
            progress: a callback; "auto" shows a bar, None nothing.

        Raises:
            UserError: for options that do not go together, and as `evaluate` does.
        """
        from calibtrain.fitting.head import Recipe
        from calibtrain.posthoc.fit import fit_temperature_head

        _require_positive(bytes)
        with shown(progress, f"fitting {kind}") as tell:
            fitted = fit_temperature_head(
                self.folder,
                kind,
                name=name,
                corpus=corpus,
                field=field,
                split=split,
                limit=bytes,
                loss=loss,
                alpha=alpha,
                balanced=balanced,
                settings=settings,
                recipe=Recipe(steps=steps, learning_rate=learning_rate, seed=seed),
                keep=keep,
                replace=replace,
                say=said,
                progress=counted(tell),
            )
        return Head(fitted.about)

    def compare_heads(
        self,
        kinds: Sequence[str] | None = None,
        *,
        corpora: Sequence[str] = (),
        fields: Sequence[str] = (),
        bytes: int | None = None,
        steps: int = 500,
        keep: bool = True,
        progress: Shown = "auto",
    ) -> HeadComparison:
        """Fits heads on validation text and compares each, on test text, with no head.

        Args:
            kinds: of heads; None means all that the model can have.
            corpora: whose test splits are measured; none means the run's own.
            fields: of their texts: one for all that have fields, or one for each in order.
            bytes: about how many bytes of each text are read; None means all.
            steps: of AdamW; a global head is fitted exactly.
            keep: whether the model's hidden states are kept in the cache.
            progress: a callback; "auto" shows a bar, None nothing.

        Raises:
            UserError: as `fit_head` does.
        """
        from calibtrain.fitting.head import Recipe
        from calibtrain.posthoc.compare import compare_heads

        _require_positive(bytes)
        with shown(progress, "comparing heads") as tell:
            found = compare_heads(
                self.folder,
                heads=kinds,
                corpora=corpora,
                fields=fields,
                limit=bytes,
                recipe=Recipe(steps=steps),
                keep=keep,
                say=said,
                progress=counted(tell),
            )
        return HeadComparison.of(found)

    def generate(
        self,
        prompt: str | bytes | Sequence[str | bytes] = "",
        *,
        samples: int = 1,
        seed: int = 0,
        max_bytes: int | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        loop_stop: bool = True,
        head: str | Head | None = None,
        save: str | None = None,
        replace: bool = False,
        rows: int | None = None,
        weights: str | None = None,
        on_piece: Callable[[int, str], None] | None = None,
        **sampling: Any,
    ) -> Generated:
        """Generates texts from the latest checkpoint, as `calibtrain generate` does.

        Args:
            prompt: what a text begins with, or several; bytes may end inside a character.
            samples: texts of each prompt.
            seed: text i is a function of the seed and i.
            max_bytes: most bytes of a text; 1000 where neither limit is given.
            max_tokens: most tokens of a text.
            stop: texts that end a text and are not part of it.
            loop_stop: whether exact repetition ends a text.
            head: a head that was fitted to the run, or its name.
            save: the name under which the trace is kept in the run's `traces/`.
            replace: whether a trace of that name may be replaced.
            rows: texts that are drawn side by side, at most.
            weights: the type that weights are kept in: float32 or bfloat16; None means that of
                the run.
            on_piece: is told a text's number and its characters, as they come.
            sampling: how tokens are chosen: greedy, temperature, top_k, top_p, min_p, typical,
                repetition_penalty, lookahead, lookahead_top, lookahead_head (docs/generation.md).

        Raises:
            UserError: for a setting that is not allowed, a prompt that the vocabulary cannot
                spell, or a run, head or name that cannot be had.
        """
        from calibtrain.generation.of_run import generate_from_run
        from calibtrain.generation.samplers import Sampling

        prompts = [prompt] if isinstance(prompt, str | bytes) else list(prompt)
        known = set(Sampling.__dataclass_fields__)
        if unknown := set(sampling) - known:
            raise UserError(
                f"{sorted(unknown)[0]}: is not a setting of generate; samplers: "
                f"{', '.join(sorted(known))}"
            )
        try:
            found = generate_from_run(
                self.folder,
                prompts,
                head=head.name if isinstance(head, Head) else head,
                samples=samples,
                seed=seed,
                sampling=Sampling(**sampling),
                weights=weights,
                save=save,
                replace=replace,
                say=said,
                max_bytes=max_bytes,
                max_tokens=max_tokens,
                stop=tuple(stop),
                loop_stop=loop_stop,
                rows=rows,
                on_piece=on_piece,
            )
        except ValueError as error:
            raise UserError(str(error)) from None
        for note in found.notes:
            said(f"note: {note}")
        return Generated(found)

    def export(self, folder: str | Path) -> Path:
        """Writes the latest checkpoint as a folder that transformers loads; returns its path.

        What the folder cannot express is a warning of the logger `calibtrain`.

        Raises:
            UserError: where there is no checkpoint, the format cannot express the model, or the
                folder is there already.
        """
        from calibtrain.interchange import export_run

        path = place(folder)
        for note in export_run(self.folder, path)["notes"]:
            log.warning("note: %s", note)
        return path

    def report(self) -> Path:
        """Writes report.html into the folder, one self-contained page; returns its path.

        Raises:
            UserError: where nothing was measured yet.
        """
        from calibtrain.report import write_report

        return write_report(self.folder)

    # --- how it looks ----------------------------------------------------------------------------

    def _lines(self) -> list[str]:
        summary = self._files.read_summary()
        if summary is None:
            return [f"Run in {self.folder}: has no run.json yet"]
        sizes, tokenizer = summary.parameters, summary.tokenizer
        corpus, body, vocab = summary.corpus.name, sizes.body, tokenizer.vocab_size
        return [
            f"Run in {self.folder}: {summary.status}, step {summary.step:,} of {summary.steps:,}",
            f"{self.config.model.kind} of {sizes.total:,} parameters ({body:,} body)",
            f"{corpus}, {tokenizer.kind} vocabulary of {vocab:,}",
        ]

    def __repr__(self) -> str:
        return f"<{(chr(10) + '  ').join(self._lines())}>"

    def _repr_html_(self) -> str:
        return "<br>".join(map(html.escape, self._lines()))


def _require_positive(bytes: int | None) -> None:
    if bytes is not None and bytes < 1:
        raise UserError(f"bytes: {bytes} is not allowed; at least 1, or None for the whole split")

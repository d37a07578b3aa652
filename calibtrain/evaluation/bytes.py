"""Events of text, over all tokenisations; the next byte: 256 of them and the end of text.

The same events for every vocabulary, so that what is measured on them can be compared.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Float, Int

import calibtrain
from calibtrain.data.batches.store import TokenStore
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.errors import UserError, require_finite
from calibtrain.evaluation.byte_windows import WARM_UP, ByteWindow, plan_byte_windows
from calibtrain.evaluation.reading import read_results
from calibtrain.evaluation.result import RATIO, WIDTH, Evaluation, document_table
from calibtrain.evaluation.signatures import signatures, temperature_label
from calibtrain.evaluation.strata import (
    ENTROPY,
    POSITION,
    document_groups,
    entropy_band,
    position_band,
)
from calibtrain.evaluation.tally import COLUMNS, Tally
from calibtrain.generation.byte_beam import ByteBeam
from calibtrain.generation.byte_trie import ByteTrie
from calibtrain.generation.states import ByteStates
from calibtrain.metrics.signature import Signature
from calibtrain.models import Network, Params

LANES = {"cpu": 16}
"""Texts read side by side, by platform: on a CPU as many as its caches hold the states of."""
LANES_ELSEWHERE = 128

Progress = Callable[[int, int], None]
"""Told how much is done, of how much."""


@dataclasses.dataclass(frozen=True)
class Beam:
    """How many tokenisations are followed.

    Attributes:
        width: hypotheses a text.
        ratio: none is kept whose weight is below this share of the best one's.
    """

    width: int = WIDTH
    ratio: float = RATIO

    @property
    def wider(self) -> "Beam":
        """The one that tells this one's error: twice the hypotheses, a tenth of the ratio."""
        return Beam(2 * self.width, self.ratio / 10)


@dataclasses.dataclass(frozen=True)
class TextScores:
    """What was found for each scored event, in any order.

    Attributes:
        document: index in the store.
        before: bytes of the document before the event.
        values: `tally.COLUMNS` of each; NaN in those that the events do not have.
    """

    document: Int[np.ndarray, " events"]
    before: Int[np.ndarray, " events"]
    values: Float[np.ndarray, "events columns"]


class Reader(Protocol):
    """Reads some windows side by side and scores their events on the way."""

    def step(
        self, distribution: Float[np.ndarray, "lanes 257"]
    ) -> tuple[Int[np.ndarray, " lanes"], Int[np.ndarray, " lanes"] | None] | None:
        """What each lane reads next, and from which lane on (`ByteBeam.read`); None: all is read.

        The first lanes are the windows'; the distributions are those of the next symbols.
        """

    @property
    def done(self) -> int:
        """Symbols read so far, of all windows."""

    def scores(self) -> list[TextScores]:
        """Of all that was scored."""


@dataclasses.dataclass(frozen=True)
class EventSpace:
    """What is predicted.

    Attributes:
        name: of the events.
        plan: the windows of a store, as `plan_byte_windows`.
        reader: of so many windows side by side.
        lanes: of the beam for each window.
        columns: of `tally.COLUMNS`, what the events have.
        confidence: which probability the confidence is, for signatures.
        about: what else the results say of how they were made.
    """

    name: str
    plan: Callable[..., tuple[Int[np.ndarray, " chosen"], list[ByteWindow]]]
    reader: Callable[[Sequence[ByteWindow], int], Reader]
    lanes: int = 1
    columns: tuple[str, ...] = COLUMNS
    confidence: str = "max"
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class ByteReader:
    """Scores the distribution of each next symbol; see `Reader`.

    correct is 1 where the (first) most probable symbol is the one that came.
    """

    def __init__(self, windows: Sequence[ByteWindow], lanes: int):
        longest = max(len(window.symbols) for window in windows)
        # -1 past a window's end
        self._symbols = np.full((longest + 1, lanes), -1, np.int64)
        self._scored = np.zeros((longest, lanes), bool)
        self._document, self._before = np.full(lanes, -1, np.int64), np.zeros(lanes, np.int64)
        for lane, window in enumerate(windows):
            self._symbols[: len(window.symbols), lane] = window.symbols
            self._scored[window.scored_from : len(window.symbols), lane] = True
            self._document[lane], self._before[lane] = window.document, window.before
        self._step, self.done = 0, 0
        self._parts: list[TextScores] = []

    def step(
        self, distribution: Float[np.ndarray, "lanes 257"]
    ) -> tuple[Int[np.ndarray, " lanes"], None] | None:
        """As `Reader` says."""
        if self._step == len(self._scored):
            return None
        now, following = self._symbols[self._step : self._step + 2]
        scored = self._scored[self._step]
        self._parts.append(
            TextScores(
                self._document[scored],
                self._before[scored] + self._step,
                event_columns(distribution[scored], now[scored]),
            )
        )
        self._step += 1
        self.done += int((now >= 0).sum())
        # a text that has been read needs no more states
        return np.where(following < 0, -1, now), None

    def scores(self) -> list[TextScores]:
        """As `Reader` says."""
        return self._parts


class TextEvaluator:
    """Evaluates parameters of one network on events of text, for any store of its vocabulary."""

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        *,
        context: int,
        bins: int,
        beam: Beam | None = None,
        lanes: int | None = None,
        events: EventSpace | None = None,
        fitted: str | None = None,
    ):
        """Args:
        network: the model.
        tokenizer: its vocabulary.
        context: tokens that the model sees back, itself included.
        bins: equal-width bins of the ECE.
        beam: default: 5 hypotheses within 0.05 of the best.
        lanes: texts of the beam side by side; default: what suits the platform.
        events: what is predicted; default: the next byte.
        fitted: name of the network's head, if it was fitted afterwards.
        """
        self._head, self._fitted = network.head.name if network.head else None, fitted
        self.network, self.tokenizer, self.context, self.bins = network, tokenizer, context, bins
        self.beam, self.events = beam or Beam(), events or NEXT_BYTE
        self.lanes = lanes or LANES.get(jax.default_backend(), LANES_ELSEWHERE)
        self.trie = ByteTrie.of(tokenizer.piece_bytes, tokenizer.eos_id)

    def evaluate(
        self,
        params: Params,
        store: TokenStore,
        about: Mapping[str, Any],
        *,
        limit: int | None = None,
        groups: Sequence[str] = (),
        progress: Progress = lambda done, total: None,
    ) -> Evaluation:
        """Score whole documents of a store, by this beam and by the wider one.

        Args:
            params: the model's parameters.
            store: tokens of a split, in the network's vocabulary.
            about: what the results belong to.
            limit: bytes of text, about; none: all.
            groups: of each document of the store; none: results are not given by group.
            progress: called before each step of a byte; may raise to give up.

        Raises:
            NonFiniteError: where a result is infinite or no number.
        """
        documents, windows = self.events.plan(
            store, self.tokenizer.piece_bytes, context=self.context, limit=limit
        )
        if not windows:
            raise ValueError("no documents to evaluate")
        found, sums = [], []
        for number, beam in enumerate((self.beam, self.beam.wider)):

            def tell(done: int, total: int, passes: int = number) -> None:
                progress(passes * total + done, 2 * total)

            scores = self.score(params, windows, beam, tell)
            tally = self._tally(scores, documents, len(store), groups)
            sums.append(tally.sums())
            raw_bytes = tally.of_blocks(store.document_bytes)
            found.append(read_results(sums[-1], raw_bytes, thorough=number == 0))
            require_finite(found[-1], about["step"])
        own, wider = found
        singles = [name for name, value in own.items() if isinstance(value, float)]
        signature = Signature(
            corpus=about["corpus_hash"],
            tokenizer=about["tokenizer_hash"],
            version=calibtrain.__version__,
            event=self.events.name,
            confidence=self.events.confidence,
            bins=self.bins,
            temperature=temperature_label(1.0, self._fitted or self._head),
        )
        return Evaluation(
            about={
                **about,
                "event": self.events.name,
                **self.events.about,
                "beam": self.beam.width,
                "ratio": self.beam.ratio,
                "warm_up": WARM_UP,
                "limit": limit,
                "context": self.context,
                "bins": self.bins,
                "temperature": self._fitted or 1.0,
                **({"head": self._head} if self._head else {}),
                "documents": len(documents),
            },
            results={
                **own,
                "wider": {
                    "beam": self.beam.wider.width,
                    "ratio": self.beam.wider.ratio,
                    **{name: wider[name] for name in singles},
                },
                "difference": {
                    name: own[name] - wider[name] for name in singles if wider[name] is not None
                },
                "signatures": signatures(own, signature),
            },
            documents=document_table(
                store.document_ids, store.document_bytes, documents, sums[0].documents
            ),
        )

    def _tally(
        self,
        scores: TextScores,
        chosen: Int[np.ndarray, " chosen"],
        documents: int,
        groups: Sequence[str],
    ) -> Tally:
        """The sums over scored events."""
        has = [column for column, name in enumerate(COLUMNS) if name in self.events.columns]
        if not np.isfinite(scores.values[:, has]).all():
            raise UserError(
                "no tokenisation that is followed allows what the text says; follow more: a larger "
                "--beam, a lower --ratio"
            )
        strata = [POSITION]
        members = {POSITION.name: position_band(scores.before)}
        if "entropy" in self.events.columns:
            strata.append(ENTROPY)
            members[ENTROPY.name] = entropy_band(scores.values[:, COLUMNS.index("entropy")])
        grouping = document_groups(groups)
        if grouping is not None:
            strata.append(grouping[0])
            members[grouping[0].name] = grouping[1][scores.document]
        tally = Tally(chosen, documents, strata, self.bins)
        tally.add(scores.document, scores.values, members)
        return tally

    def score(
        self,
        params: Params,
        windows: Sequence[ByteWindow],
        beam: Beam,
        progress: Progress = lambda done, total: None,
    ) -> TextScores:
        """Score the events of windows, several windows side by side.

        Args:
            params: the model's parameters.
            windows: of like lengths together, as they are planned.
            beam: how many tokenisations are followed.
            progress: called before each step with the number of symbols read, and of all.
        """
        texts = min(max(1, self.lanes // self.events.lanes), len(windows))
        hypotheses = ByteBeam(self.trie, texts * self.events.lanes, beam.width, beam.ratio)
        states = ByteStates(
            self.network,
            params,
            self.trie,
            rows=hypotheses.lanes * hypotheses.slots,
            context=self.context,
        )
        total = sum(len(window.symbols) for window in windows)
        done, parts = 0, []
        for first in range(0, len(windows), texts):
            batch = windows[first : first + texts]
            reader = self.events.reader(batch, texts)
            rows = hypotheses.start(np.arange(len(batch)))
            found = states.start([window.prefix for window in batch], rows)
            hypotheses.set_probabilities(rows, found)
            while (step := reader.step(hypotheses.predict())) is not None:
                progress(done + reader.done, total)
                new, copies, _ = hypotheses.read(*step)
                if len(copies.sources):
                    states.copy(*copies)
                if len(new.tokens):
                    hypotheses.set_probabilities(new.targets, states.extend(*new))
            done += reader.done
            parts += reader.scores()
        progress(total, total)
        columns = zip(*((part.document, part.before, part.values) for part in parts), strict=True)
        return TextScores(*(np.concatenate(column) for column in columns))


def event_columns(
    distribution: Float[np.ndarray, "lanes 257"], symbols: Int[np.ndarray, " lanes"]
) -> Float[np.ndarray, "lanes columns"]:
    """`tally.COLUMNS` of some events."""
    probability = normalised(distribution)
    of_event = probability[np.arange(len(symbols)), symbols]
    with np.errstate(divide="ignore"):  # what no kept hypothesis allows: refused at the end
        nll = -np.log(of_event)
    logs = np.log(probability, out=np.zeros_like(probability), where=probability > 0)
    entropy = -(probability * logs).sum(axis=1)
    correct = (probability.argmax(axis=1) == symbols).astype(np.float64)
    brier = 1 - 2 * of_event + np.square(probability).sum(axis=1)
    return np.column_stack([nll, entropy, probability.max(axis=1), correct, brier])


def normalised(distribution: Float[np.ndarray, "lanes 257"]) -> Float[np.ndarray, "lanes 257"]:
    """Probabilities of what the beam predicts."""
    return distribution / distribution.sum(axis=1, keepdims=True)


NEXT_BYTE = EventSpace("byte", plan_byte_windows, ByteReader)

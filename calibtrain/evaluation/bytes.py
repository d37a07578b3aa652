"""The next-byte event space: 256 bytes and the end of text, over all tokenisations.

The same events for every vocabulary, so that what is measured on them can be compared.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

import calibtrain
from calibtrain.data.byte_trie import ByteTrie
from calibtrain.data.byte_windows import WARM_UP, ByteWindow, plan_byte_windows
from calibtrain.data.store import TokenStore
from calibtrain.data.tokenizer import Tokenizer
from calibtrain.evaluation.byte_beam import ByteBeam
from calibtrain.evaluation.byte_states import ByteStates
from calibtrain.evaluation.reading import read_results
from calibtrain.evaluation.result import Evaluation, document_table
from calibtrain.evaluation.signatures import signatures
from calibtrain.evaluation.strata import (
    ENTROPY,
    POSITION,
    document_groups,
    entropy_band,
    position_band,
)
from calibtrain.evaluation.tally import COLUMNS, Tally
from calibtrain.metrics.signature import Signature
from calibtrain.models import Network, Params
from calibtrain.training.finite import NonFiniteError, require_finite

LANES = {"cpu": 16}
"""Windows read side by side, by platform: on a CPU as many as its caches hold the states of."""
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

    width: int = 5
    ratio: float = 0.05

    @property
    def wider(self) -> "Beam":
        """The one that tells this one's error: twice the hypotheses, a tenth of the ratio."""
        return Beam(2 * self.width, self.ratio / 10)


@dataclasses.dataclass(frozen=True)
class ByteScores:
    """What was found for each scored event, in any order.

    Attributes:
        document: index in the store.
        before: bytes of the document before the event.
        values: `tally.COLUMNS` of each, of the predictive distribution over 257 events; correct is
            1 where the (first) most probable event is the one that came.
    """

    document: Int[np.ndarray, " events"]
    before: Int[np.ndarray, " events"]
    values: Float[np.ndarray, "events columns"]


class ByteEvaluator:
    """Evaluates parameters of one network by bytes, for any store of its vocabulary."""

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        *,
        context: int,
        bins: int,
        beam: Beam | None = None,
        lanes: int | None = None,
    ):
        """Args:
        network: the model.
        tokenizer: its vocabulary.
        context: tokens that the model sees back, itself included.
        bins: equal-width bins of the ECE.
        beam: default: 5 hypotheses within 0.05 of the best.
        lanes: windows read side by side; default: what suits the platform.
        """
        self.network, self.tokenizer, self.context, self.bins = network, tokenizer, context, bins
        self.beam = beam or Beam()
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
        documents, windows = plan_byte_windows(
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
            event="byte",
            bins=self.bins,
        )
        return Evaluation(
            about={
                **about,
                "event": "byte",
                "beam": self.beam.width,
                "ratio": self.beam.ratio,
                "warm_up": WARM_UP,
                "limit": limit,
                "context": self.context,
                "bins": self.bins,
                "temperature": 1.0,
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
        scores: ByteScores,
        chosen: Int[np.ndarray, " chosen"],
        documents: int,
        groups: Sequence[str],
    ) -> Tally:
        """The sums over scored events."""
        strata = [POSITION, ENTROPY]
        members = {
            POSITION.name: position_band(scores.before),
            ENTROPY.name: entropy_band(scores.values[:, COLUMNS.index("entropy")]),
        }
        grouping = document_groups(groups)
        if grouping is not None:
            strata.append(grouping[0])
            members[grouping[0].name] = grouping[1][scores.document]
        if not np.isfinite(scores.values).all():
            raise NonFiniteError(
                "the nll of a byte is infinite: no hypothesis that is kept allows it"
            )
        tally = Tally(chosen, documents, strata, self.bins)
        tally.add(scores.document, scores.values, members)
        return tally

    def score(
        self,
        params: Params,
        windows: Sequence[ByteWindow],
        beam: Beam,
        progress: Progress = lambda done, total: None,
    ) -> ByteScores:
        """Score the events of windows, several windows side by side.

        Args:
            params: the model's parameters.
            windows: of like lengths together, as `plan_byte_windows` orders them.
            beam: how many tokenisations are followed.
            progress: called before each step with the number of symbols read, and of all.
        """
        lanes = min(self.lanes, len(windows))
        hypotheses = ByteBeam(self.trie, lanes, beam.width, beam.ratio)
        states = ByteStates(
            self.network,
            params,
            self.trie,
            rows=lanes * hypotheses.slots,
            context=self.context,
        )
        total = sum(len(window.symbols) for window in windows)
        done = 0
        parts = []
        for first in range(0, len(windows), lanes):
            batch = windows[first : first + lanes]
            symbols, scored, document, before = _side_by_side(batch, lanes)
            rows = hypotheses.start(np.arange(len(batch)))
            found = states.start([window.prefix for window in batch], rows)
            hypotheses.set_probabilities(rows, found)
            steps = zip(symbols[:-1], symbols[1:], scored, strict=True)
            for step, (now, following, counted) in enumerate(steps):
                progress(done, total)
                done += int((now >= 0).sum())
                distribution = hypotheses.predict()
                values = event_columns(distribution[counted], now[counted])
                parts.append((document[counted], before[counted] + step, values))
                # a text that has been read needs no more states
                new, _ = hypotheses.read(np.where(following < 0, -1, now))
                if len(new.tokens):
                    hypotheses.set_probabilities(new.targets, states.extend(*new))
        progress(done, total)
        return ByteScores(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _side_by_side(
    batch: Sequence[ByteWindow], lanes: int
) -> tuple[
    Int[np.ndarray, "steps+1 lanes"],
    Bool[np.ndarray, "steps lanes"],
    Int[np.ndarray, " lanes"],
    Int[np.ndarray, " lanes"],
]:
    """Symbols, -1 past a window's end; which are scored; each lane's document and bytes before."""
    steps = max(len(window.symbols) for window in batch)
    symbols = np.full((steps + 1, lanes), -1, np.int64)
    scored = np.zeros((steps, lanes), bool)
    document, before = np.full(lanes, -1, np.int64), np.zeros(lanes, np.int64)
    for lane, window in enumerate(batch):
        symbols[: len(window.symbols), lane] = window.symbols
        scored[window.scored_from : len(window.symbols), lane] = True
        document[lane], before[lane] = window.document, window.before
    return symbols, scored, document, before


def event_columns(
    distribution: Float[np.ndarray, "lanes 257"], symbols: Int[np.ndarray, " lanes"]
) -> Float[np.ndarray, "lanes columns"]:
    """`tally.COLUMNS` of some events."""
    probability = distribution / distribution.sum(axis=1, keepdims=True)
    of_event = probability[np.arange(len(symbols)), symbols]
    with np.errstate(divide="ignore"):  # what no kept hypothesis allows: refused at the end
        nll = -np.log(of_event)
    logs = np.log(probability, out=np.zeros_like(probability), where=probability > 0)
    entropy = -(probability * logs).sum(axis=1)
    correct = (probability.argmax(axis=1) == symbols).astype(np.float64)
    brier = 1 - 2 * of_event + np.square(probability).sum(axis=1)
    return np.column_stack([nll, entropy, probability.max(axis=1), correct, brier])

"""The next-byte event space: 256 bytes and the end of text, over all tokenisations.

The same events for every vocabulary, so that what is measured on them can be compared.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from calibtrain.data.byte_trie import ByteTrie
from calibtrain.data.byte_windows import WARM_UP, ByteWindow, plan_byte_windows
from calibtrain.data.store import TokenStore
from calibtrain.data.tokenizer import Tokenizer
from calibtrain.evaluation.byte_beam import ByteBeam
from calibtrain.evaluation.byte_states import ByteStates
from calibtrain.evaluation.result import Evaluation, document_table
from calibtrain.metrics.tokens import TokenMetrics, token_metrics
from calibtrain.models import Network, Params
from calibtrain.readout import TokenStats
from calibtrain.training.finite import require_finite

LANES = {"cpu": 16}
"""Windows read side by side, by platform: on a CPU as many as its caches hold the states of."""
LANES_ELSEWHERE = 128
_EVENTS_AT_ONCE = 8192  # summed in float32, which is exact to about 1e-7 of so many

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
        nll: -log p of the event, in nats.
        entropy: of the predictive distribution over 257 events, in nats.
        confidence: its largest probability.
        correct: 1 where the (first) most probable event is the one that came.
    """

    document: Int[np.ndarray, " events"]
    nll: Float[np.ndarray, " events"]
    entropy: Float[np.ndarray, " events"]
    confidence: Float[np.ndarray, " events"]
    correct: Float[np.ndarray, " events"]


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
        progress: Progress = lambda done, total: None,
    ) -> Evaluation:
        """Score whole documents of a store, by this beam and by the wider one.

        Args:
            params: the model's parameters.
            store: tokens of a split, in the network's vocabulary.
            about: what the results belong to.
            limit: bytes of text, about; none: all.
            progress: called before each step of a byte; may raise to give up.

        Raises:
            NonFiniteError: where a result is infinite or no number.
        """
        documents, windows = plan_byte_windows(
            store, self.tokenizer.piece_bytes, context=self.context, limit=limit
        )
        if not windows:
            raise ValueError("no documents to evaluate")
        raw_bytes = int(store.document_bytes[documents].sum())
        figures, scores = [], []
        for number, beam in enumerate((self.beam, self.beam.wider)):

            def tell(done: int, total: int, passes: int = number) -> None:
                progress(passes * total + done, 2 * total)

            scores.append(self.score(params, windows, beam, tell))
            figures.append(byte_metrics(scores[-1], raw_bytes, self.bins))
            require_finite(figures[-1], about["step"])
        own, wider = figures
        singles = [name for name, value in own.items() if isinstance(value, float)]
        return Evaluation(
            about={
                **about,
                "events": "byte",
                "beam": self.beam.width,
                "ratio": self.beam.ratio,
                "warm_up": WARM_UP,
                "limit": limit,
                "context": self.context,
                "bins": self.bins,
                "documents": len(documents),
            },
            results={
                **own,
                "wider": {
                    "beam": self.beam.wider.width,
                    "ratio": self.beam.wider.ratio,
                    **{name: wider[name] for name in singles},
                },
                "difference": {name: own[name] - wider[name] for name in singles},
            },
            documents=document_table(
                store.document_ids, store.document_bytes, documents, _sums(scores[0], len(store))
            ),
        )

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
            symbols, scored, document = _side_by_side(batch, lanes)
            rows = hypotheses.start(np.arange(len(batch)))
            found = states.start([window.prefix for window in batch], rows)
            hypotheses.set_probabilities(rows, found)
            for now, following, counted in zip(symbols[:-1], symbols[1:], scored, strict=True):
                progress(done, total)
                done += int((now >= 0).sum())
                distribution = hypotheses.predict()
                parts.append(_events(distribution[counted], now[counted], document[counted]))
                # a text that has been read needs no more states
                new, _ = hypotheses.read(np.where(following < 0, -1, now))
                if len(new.tokens):
                    hypotheses.set_probabilities(new.targets, states.extend(*new))
        progress(done, total)
        return ByteScores(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def byte_metrics(scores: ByteScores, raw_bytes: int, bins: int) -> dict[str, Any]:
    """The results by their public names, as of `metrics.token_metrics`.

    `tokens` counts the events: bytes and ends of documents; `nll` and `entropy_rate` are nats an
    event.
    """
    state = None
    for start in range(0, len(scores.nll), _EVENTS_AT_ONCE):
        part = slice(start, start + _EVENTS_AT_ONCE)
        nll = jnp.asarray(scores.nll[part], jnp.float32)
        stats = TokenStats(
            nll=nll,
            log_confidence=jnp.asarray(np.log(scores.confidence[part]), jnp.float32),
            correct=jnp.asarray(scores.correct[part], jnp.float32),
            entropy=jnp.asarray(scores.entropy[part], jnp.float32),
        )
        group = jnp.zeros(nll.shape, jnp.int32)
        found = TokenMetrics.of(stats, jnp.ones_like(nll), group, groups=1, bins=bins).exact()
        state = found if state is None else state.merge(found)
    assert state is not None
    results = token_metrics(state, raw_bytes)
    del results["frequency_deciles"]  # of tokens
    return results


def _side_by_side(
    batch: Sequence[ByteWindow], lanes: int
) -> tuple[
    Int[np.ndarray, "steps+1 lanes"], Bool[np.ndarray, "steps lanes"], Int[np.ndarray, " lanes"]
]:
    """Symbols, -1 past a window's end; which of them are scored; the document of each lane."""
    steps = max(len(window.symbols) for window in batch)
    symbols = np.full((steps + 1, lanes), -1, np.int64)
    scored = np.zeros((steps, lanes), bool)
    document = np.full(lanes, -1, np.int64)
    for lane, window in enumerate(batch):
        symbols[: len(window.symbols), lane] = window.symbols
        scored[window.scored_from : len(window.symbols), lane] = True
        document[lane] = window.document
    return symbols, scored, document


def _events(
    distribution: Float[np.ndarray, "lanes 257"],
    symbols: Int[np.ndarray, " lanes"],
    document: Int[np.ndarray, " lanes"],
) -> tuple[np.ndarray, ...]:
    """The columns of `ByteScores` for some events."""
    probability = distribution / distribution.sum(axis=1, keepdims=True)
    of_event = probability[np.arange(len(symbols)), symbols]
    with np.errstate(divide="ignore"):  # what no kept hypothesis allows: refused at the end
        nll = -np.log(of_event)
    logs = np.log(probability, out=np.zeros_like(probability), where=probability > 0)
    entropy = -(probability * logs).sum(axis=1)
    correct = (probability.argmax(axis=1) == symbols).astype(np.float64)
    return document, nll, entropy, probability.max(axis=1), correct


def _sums(scores: ByteScores, documents: int) -> Float[np.ndarray, "documents 5"]:
    """Per document: events, nll, entropy, confidence and correctness."""
    columns = (np.ones(len(scores.nll)), scores.nll, scores.entropy, scores.confidence)
    return np.stack(
        [
            np.bincount(scores.document, column, minlength=documents)
            for column in (*columns, scores.correct)
        ],
        axis=1,
    )

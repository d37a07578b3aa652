"""The token event space: a model on windows of a store, scored once per slot."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from calibtrain.data.batches.examples import AnswerWindows
from calibtrain.data.batches.sample import whole
from calibtrain.data.batches.store import TokenStore
from calibtrain.data.batches.windows import EvaluationWindows, WindowBatch
from calibtrain.evaluation.event_space import EventSpace, Measurement, require_finite_figures
from calibtrain.evaluation.event_sums import COLUMNS, EventSums, ScoredEvents
from calibtrain.evaluation.result import Evaluation
from calibtrain.evaluation.strata import DECILES, ENTROPY, FREQUENCY, POSITION, PREDICTION
from calibtrain.evaluation.token_scores import (
    VALUES,
    scored_tokens,
    thorough_scorer,
    token_scorer,
)
from calibtrain.models import Network, Params
from calibtrain.parallel.mesh import Layout
from calibtrain.scoring.scorer import Scorer

TOKENS = EventSpace("token", (FREQUENCY, POSITION, ENTROPY))
"""Events that differ from vocabulary to vocabulary: the next token, as the tokenizer gives it."""


class TokenEvaluator:
    """Evaluates parameters of one network; compiled once, for any store of the vocabulary."""

    def __init__(
        self,
        network: Network,
        deciles: Int[np.ndarray, " vocab"],
        *,
        rows: int,
        context: int,
        bins: int,
        layout: Layout | None = None,
        chunk: int | None = None,
        fitted: str | None = None,
    ):
        """Args:
        network: the model.
        deciles: frequency decile 0..9 of each vocabulary entry in the training text.
        rows: windows per batch; rounded up to a multiple of the devices that share them.
        context: slots per row.
        bins: equal-width bins of the ECE.
        layout: of the devices that share the work; None means one device.
        chunk: tokens whose logits are held at once.
        fitted: name of the network's head, if it was fitted afterwards.
        """
        self._head = network.head.name if network.head else None
        self._fitted = fitted
        self._scorer = token_scorer(network, layout=layout, chunk=chunk)
        self._thorough = thorough_scorer(network, deciles, layout=layout, chunk=chunk)
        self.rows, self.context, self.bins = self._scorer.rows(rows), context, bins
        self._deciles = deciles
        self._entries = np.bincount(deciles, minlength=DECILES)

    def lower(self, params: Any) -> Any:
        """Returns the program of a thorough evaluation for parameters of such shapes."""
        integers = jax.ShapeDtypeStruct((self.rows, self.context), jnp.int32)
        weights = jax.ShapeDtypeStruct((self.rows, self.context), jnp.float32)
        batch = WindowBatch(integers, integers, integers, weights, integers, integers)
        return self._thorough.lower(params, batch)

    def evaluate(
        self,
        params: Params,
        store: TokenStore | AnswerWindows,
        about: Mapping[str, Any],
        *,
        limit: int | None = None,
        groups: Sequence[str] = (),
        temperature: float = 1.0,
        thorough: bool = True,
        check: Callable[[], None] = lambda: None,
    ) -> Evaluation:
        """Scores whole documents of a store.

        Args:
            params: the model's parameters.
            store: tokens of a split, in the network's vocabulary; or answers to be scored alone.
            about: what the results belong to: corpus, split, step, hashes.
            limit: about how many bytes of text; None means all.
            groups: group of each document of the store; empty: results are not given by group.
            temperature: divides the logits.
            thorough: whether all figures have intervals (see `event_figures.compute_results`), and
                what is predicted is measured by its frequency too.
            check: called between batches; may raise to give up.

        Raises:
            NonFiniteError: where a result is infinite or NaN.
        """
        windows = self._windows(store, limit)
        strata = [PREDICTION] if thorough else []
        stretches = whole(store, windows.documents)
        measured = Measurement(TOKENS, store, stretches, about, self.bins, groups, strata)
        sums = measured.sums(self._events(windows, params, about, temperature, check, thorough))
        results = measured.results(sums, vocabulary_entries=self._entries, thorough=thorough)
        return measured.evaluation(
            sums,
            results,
            limit=limit,
            context=windows.context,
            temperature=temperature,
            head=self._head,
            fitted=self._fitted,
        )

    def sums(
        self,
        params: Params,
        store: TokenStore | AnswerWindows,
        about: Mapping[str, Any],
        *,
        limit: int | None = None,
        groups: Sequence[str] = (),
    ) -> EventSums:
        """Scores whole documents of a store and returns the sums alone, before any figure.

        Arguments as for `evaluate`; errors name corpus, split and step of `about`.
        """
        windows = self._windows(store, limit)
        measured = Measurement(
            TOKENS, store, whole(store, windows.documents), about, self.bins, groups
        )
        return measured.sums(self._events(windows, params, about, 1.0, lambda: None))

    def _windows(
        self, store: TokenStore | AnswerWindows, limit: int | None
    ) -> EvaluationWindows | AnswerWindows:
        windows: EvaluationWindows | AnswerWindows
        if isinstance(store, AnswerWindows):
            windows = store
        else:
            windows = EvaluationWindows(store, rows=self.rows, context=self.context, limit=limit)
        if not len(windows.documents):
            raise ValueError("no documents to evaluate")
        return windows

    def _events(
        self,
        windows: EvaluationWindows | AnswerWindows,
        params: Params,
        about: Mapping[str, Any],
        temperature: float,
        check: Callable[[], None],
        thorough: bool = False,
    ) -> Iterator[ScoredEvents]:
        """The scored tokens of each batch."""
        scorer = self._thorough if thorough else self._scorer
        for scores, batch in self._scored(scorer, windows, params, temperature, check):
            _require_finite_scores(scores[VALUES], about)
            yield scored_tokens(scores, batch, self._deciles)

    def likelihood(
        self,
        params: Params,
        store: TokenStore,
        about: Mapping[str, Any],
        temperature: float,
        *,
        limit: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> tuple[float, float]:
        """The mean nll and mean entropy per token, in nats; arguments as for `evaluate`."""
        windows = EvaluationWindows(store, rows=self.rows, context=self.context, limit=limit)
        count, sums = 0, np.zeros(2)
        for scores, _ in self._scored(self._scorer, windows, params, temperature, check):
            values = scores[VALUES]
            _require_finite_scores(values, about)
            count += len(values)
            sums += values[:, :2].sum(0, dtype=np.float64)
        nll, entropy = sums / count
        return float(nll), float(entropy)

    @staticmethod
    def _scored(
        scorer: Scorer,
        windows: EvaluationWindows | AnswerWindows,
        params: Params,
        temperature: float,
        check: Callable[[], None],
    ) -> Iterator[tuple[dict[str, np.ndarray], WindowBatch]]:
        """Yields the scores of the events that count in each batch by name, and the batch."""

        def batches() -> Iterator[WindowBatch]:
            for index in range(len(windows)):
                check()
                yield windows[index]

        divisor = None if temperature == 1.0 else np.float32(temperature)
        for batch, scores in scorer.over(params, batches(), divisor):
            counted = batch.weights > 0
            yield {name: column[counted] for name, column in scores.items()}, batch


def _require_finite_scores(values: Float[np.ndarray, "events columns"], about: Any) -> None:
    if not np.isfinite(values).all():
        column = int(np.flatnonzero(~np.isfinite(values).all(axis=0))[0])
        require_finite_figures({COLUMNS[column]: float(values[:, column].sum())}, about)

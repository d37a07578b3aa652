"""The token event space: a model on windows of a store, scored once per slot."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

import calibtrain
from calibtrain.data.batches.examples import AnswerWindows
from calibtrain.data.batches.store import TokenStore
from calibtrain.data.batches.windows import EvaluationWindows, WindowBatch
from calibtrain.errors import NonFiniteError, require_finite
from calibtrain.evaluation.reading import read_results
from calibtrain.evaluation.result import Evaluation, document_table
from calibtrain.evaluation.signatures import signatures, temperature_label
from calibtrain.evaluation.strata import (
    DECILES,
    ENTROPY,
    FREQUENCY,
    POSITION,
    document_groups,
    entropy_band,
    position_band,
)
from calibtrain.evaluation.tally import COLUMNS, Tally
from calibtrain.losses import Brier
from calibtrain.metrics.signature import Signature
from calibtrain.models import Network, Params
from calibtrain.parallel.mesh import Layout
from calibtrain.readout import TokenStats
from calibtrain.scoring.scorer import Scorer, network_output

FIELDS = ("nll", "log_confidence", "correct", "entropy", "sum_squares")
"""What is asked of `readout`."""


def event_columns(stats: TokenStats) -> Float[Array, "*tokens columns"]:
    """`tally.COLUMNS` of tokens, from statistics with `FIELDS`."""
    brier = Brier().per_token(stats)
    return jnp.stack([stats.nll, stats.entropy, stats.confidence, stats.correct, brier], axis=-1)


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
        rows: windows' rows a batch; rounded up to a multiple of the devices that share them.
        context: slots a row.
        bins: equal-width bins of the ECE.
        layout: of the devices that share the work; none: one device.
        chunk: tokens whose logits are held at once.
        fitted: name of the network's head, if it was fitted afterwards.
        """
        self._head = network.head.name if network.head else None
        self._fitted = fitted
        self._scorer = Scorer(
            network_output(network),
            **network.reading,
            fields=FIELDS,
            result=lambda stats, batch: event_columns(stats),
            chunk=chunk,
            layout=layout,
        )
        self.rows, self.context, self.bins = self._scorer.rows(rows), context, bins
        self._deciles = deciles
        self._entries = np.bincount(deciles, minlength=DECILES)

    def lower(self, params: Any) -> Any:
        """Returns the program that scores a batch for parameters of such shapes, to be compiled."""
        integers = jax.ShapeDtypeStruct((self.rows, self.context), jnp.int32)
        weights = jax.ShapeDtypeStruct((self.rows, self.context), jnp.float32)
        batch = WindowBatch(integers, integers, integers, weights, integers, integers)
        return self._scorer.lower(params, batch)

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
        """Score whole documents of a store.

        Args:
            params: the model's parameters.
            store: tokens of a split, in the network's vocabulary; or answers to be scored alone.
            about: what the results belong to.
            limit: bytes of text, about; none: all.
            groups: of each document of the store; none: results are not given by group.
            temperature: divides the logits.
            thorough: with all intervals (see `reading.read_results`).
            check: called between batches; may raise to give up.

        Raises:
            NonFiniteError: where a result is infinite or no number.
        """
        tally, windows = self.tally(
            params,
            store,
            about,
            limit=limit,
            groups=groups,
            temperature=temperature,
            check=check,
        )
        sums = tally.sums()
        results = read_results(
            sums,
            tally.of_blocks(store.document_bytes),
            vocabulary_entries=self._entries,
            thorough=thorough,
        )
        _require_finite_results(results, about)
        signature = Signature(
            corpus=about["corpus_hash"],
            tokenizer=about["tokenizer_hash"],
            version=calibtrain.__version__,
            bins=self.bins,
            temperature=temperature_label(temperature, self._fitted or self._head),
        )
        return Evaluation(
            about={
                **about,
                "event": "token",
                "limit": limit,
                "context": windows.context,
                "bins": self.bins,
                "temperature": self._fitted or temperature,
                **({"head": self._head} if self._head else {}),
                "documents": len(windows.documents),
            },
            results={**results, "signatures": signatures(results, signature)},
            documents=document_table(
                store.document_ids, store.document_bytes, windows.documents, sums.documents
            ),
        )

    def tally(
        self,
        params: Params,
        store: TokenStore | AnswerWindows,
        about: Mapping[str, Any],
        *,
        limit: int | None = None,
        groups: Sequence[str] = (),
        temperature: float = 1.0,
        check: Callable[[], None] = lambda: None,
    ) -> tuple[Tally, EvaluationWindows | AnswerWindows]:
        """Sums over the scored tokens, and the windows they were scored in.

        Arguments as for `evaluate`; of `about`, errors name corpus, split and step.
        """
        windows: EvaluationWindows | AnswerWindows
        if isinstance(store, AnswerWindows):
            windows = store
        else:
            windows = EvaluationWindows(store, rows=self.rows, context=self.context, limit=limit)
        if not len(windows.documents):
            raise ValueError("no documents to evaluate")
        strata = [FREQUENCY, POSITION, ENTROPY]
        grouping = document_groups(groups)
        if grouping is not None:
            strata.append(grouping[0])
        tally = Tally(windows.documents, len(store.document_bytes), strata, self.bins)
        for values, batch in self._scored(windows, params, temperature, check):
            counted = batch.weights > 0
            documents = batch.documents[counted]
            members = {
                FREQUENCY.name: self._deciles[batch.labels[counted]],
                POSITION.name: position_band(batch.before[counted]),
                ENTROPY.name: entropy_band(values[:, COLUMNS.index("entropy")]),
            }
            if grouping is not None:
                members[grouping[0].name] = grouping[1][documents]
            _require_finite_scores(values, about)
            tally.add(documents, values, members)
        return tally, windows

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
        """Mean nll and mean entropy a token, in nats; arguments as for `evaluate`."""
        windows = EvaluationWindows(store, rows=self.rows, context=self.context, limit=limit)
        count, sums = 0, np.zeros(2)
        for values, _ in self._scored(windows, params, temperature, check):
            _require_finite_scores(values, about)
            count += len(values)
            sums += values[:, :2].sum(0, dtype=np.float64)
        nll, entropy = sums / count
        return float(nll), float(entropy)

    def _scored(
        self,
        windows: EvaluationWindows | AnswerWindows,
        params: Params,
        temperature: float,
        check: Callable[[], None],
    ) -> Iterator[tuple[Float[np.ndarray, "events columns"], WindowBatch]]:
        """Yields `COLUMNS` of the events that count in each batch, and the batch."""

        def batches() -> Iterator[WindowBatch]:
            for index in range(len(windows)):
                check()
                yield windows[index]

        divisor = None if temperature == 1.0 else np.float32(temperature)
        for batch, values in self._scorer.over(params, batches(), divisor):
            yield values[batch.weights > 0], batch


def _require_finite_scores(values: Float[np.ndarray, "events columns"], about: Any) -> None:
    if not np.isfinite(values).all():
        column = int(np.flatnonzero(~np.isfinite(values).all(axis=0))[0])
        _require_finite_results({COLUMNS[column]: float(values[:, column].sum())}, about)


def _require_finite_results(results: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    try:
        require_finite(results, about["step"])
    except NonFiniteError as error:
        place = f"evaluation {about['corpus']}-{about['split']}"
        raise NonFiniteError(f"{place}: {error}") from None

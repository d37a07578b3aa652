"""The token event space: a model on windows of a store, scored once per slot."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from calibtrain.data.store import TokenStore
from calibtrain.data.windows import EvaluationWindows, WindowBatch
from calibtrain.evaluation.result import Evaluation, document_table
from calibtrain.metrics.tokens import FIELDS, TokenMetrics, token_metrics
from calibtrain.models import Network, Params
from calibtrain.parallel.mesh import ROWS, Layout
from calibtrain.readout import readout
from calibtrain.training.finite import NonFiniteError, require_finite

DECILES = 10


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
    ):
        """Args:
        network: the model.
        deciles: frequency decile 0..9 of each vocabulary entry in the training text.
        rows: windows' rows a batch; rounded up to a multiple of the devices that share them.
        context: slots a row.
        bins: equal-width bins of the ECE.
        layout: of the devices that share the work; none: one device.
        chunk: tokens whose logits are held at once.
        """
        self._layout = layout if layout and layout.devices > 1 else None
        shares = self._layout.row_shares if self._layout else 1
        self.rows, self.context, self.bins = -(-rows // shares) * shares, context, bins
        self._entries = np.bincount(deciles, minlength=DECILES)
        group = jnp.asarray(deciles)

        def evaluate_batch(
            params: Params, batch: WindowBatch
        ) -> tuple[TokenMetrics, Float[Array, "rows context 4"]]:
            hidden, unembedding = network.apply(params, batch.tokens, batch.segments)
            stats = readout(
                hidden,
                unembedding,
                batch.labels,
                vocab_size=network.vocab_size,
                soft_cap=network.config.logit_soft_cap,
                fields=FIELDS,
                chunk=chunk,
            )
            state = TokenMetrics.of(
                stats, batch.weights, group[batch.labels], groups=DECILES, bins=bins
            )
            columns = [stats.nll, stats.entropy, stats.confidence, stats.correct]
            return state, jnp.stack(columns, axis=-1)

        self._evaluate_batch: Any = (
            _shared(evaluate_batch, self._layout) if self._layout else jax.jit(evaluate_batch)
        )

    def lower(self, params: Any) -> Any:
        """The program that scores a batch, ready to be compiled for parameters of such shapes."""
        sharding = self._layout.rows if self._layout else None
        shape = (self.rows, self.context)
        integers = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=sharding)
        weights = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)
        batch = WindowBatch(integers, integers, integers, weights, integers)
        return self._evaluate_batch.lower(params, batch)

    def evaluate(
        self,
        params: Params,
        store: TokenStore,
        about: Mapping[str, Any],
        *,
        limit: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Evaluation:
        """Score whole documents of a store.

        Args:
            params: the model's parameters.
            store: tokens of a split, in the network's vocabulary.
            about: what the results belong to.
            limit: bytes of text, about; none: all.
            check: called between batches; may raise to give up.

        Raises:
            NonFiniteError: where a result is infinite or no number.
        """
        windows = EvaluationWindows(store, rows=self.rows, context=self.context, limit=limit)
        state = None
        sums = np.zeros((len(store), 5))
        pending: tuple[Any, WindowBatch] | None = None

        def take(result: Any, batch: WindowBatch) -> None:
            nonlocal state
            part, tokens = result
            state = part.exact() if state is None else state.merge(part.exact())
            counted = batch.weights > 0
            values = np.asarray(tokens, np.float64)[counted]
            columns = np.concatenate([np.ones((len(values), 1)), values], axis=1)
            documents = batch.documents[counted]
            for column in range(5):
                sums[:, column] += np.bincount(
                    documents, weights=columns[:, column], minlength=len(store)
                )

        for index in range(len(windows)):
            check()
            batch = windows[index]
            shared = self._layout.share_out(batch) if self._layout else batch
            result = self._evaluate_batch(params, shared)
            if pending is not None:  # read one batch behind, while the device does the next
                take(*pending)
            pending = (result, batch)
        if pending is not None:
            take(*pending)
        if state is None:
            raise ValueError("no documents to evaluate")
        results = token_metrics(state, windows.bytes, self._entries)
        try:
            require_finite(results, about["step"])
        except NonFiniteError as error:
            where = f"evaluation {about['corpus']}-{about['split']}"
            raise NonFiniteError(f"{where}: {error}") from None
        return Evaluation(
            about={
                **about,
                "limit": limit,
                "context": self.context,
                "bins": self.bins,
                "documents": len(windows.documents),
            },
            results=results,
            documents=document_table(
                store.document_ids, store.document_bytes, windows.documents, sums
            ),
        )


def _shared(evaluate_batch: Callable[..., Any], layout: Layout) -> Callable[..., Any]:
    """The same, each device on its rows; every host gets all results."""

    def on_device(params: Params, batch: WindowBatch) -> Any:
        state, columns = evaluate_batch(params, batch)
        return jax.lax.psum(state, ROWS), columns

    run = layout.on_each_device(on_device, (P(), P(ROWS)), (P(), P(ROWS)))
    return jax.jit(run, out_shardings=layout.everywhere)

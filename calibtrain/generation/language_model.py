"""`LanguageModel`: what generating text needs of a run: network, parameters, tokenizer, context."""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from calibtrain.data.tokenizers.tokenizer import Tokenizer, utf8_bytes
from calibtrain.errors import UserError
from calibtrain.generation.large_pages import in_large_pages
from calibtrain.generation.lookahead_head import LookaheadHead
from calibtrain.models import ADAPTER, TEMPERATURE, Network, Params

if TYPE_CHECKING:
    from calibtrain.runs.loading import SavedRun


WEIGHTS = ("float32", "bfloat16")
"""Types that weights can be kept in for generating."""


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """A model that text is generated and traced with.

    Attributes:
        network: the model, with the head that divides its logits, if any.
        params: its parameters.
        tokenizer: text to ids and back.
        context: how many tokens the model sees.
        head_name: the name of the head, as a run keeps it; None without one.
        about: what a trace says of the model: run, step, hash of the tokenizer.
        weights: the type that matrices are kept in; None means that layers take them as they are.
        lookahead: a head that predicts the next step's entropy, where one is to be used.
    """

    network: Network
    params: Params = dataclasses.field(repr=False)
    tokenizer: Tokenizer
    context: int
    head_name: str | None = None
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    weights: str | None = None
    lookahead: LookaheadHead | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        # The adapters' products are added once here, and not at every token.
        if self.network.adapter is not None:
            object.__setattr__(self, "params", _merged(self.network, self.params))
            object.__setattr__(self, "network", dataclasses.replace(self.network, adapter=None))

    @classmethod
    def of(cls, saved: "SavedRun") -> "LanguageModel":
        """Returns the model of a run that is opened, with the head that it was opened with."""
        head = None if saved.head is None else saved.head.name
        network = saved.network
        return cls(
            network=dataclasses.replace(network, adapter=None),
            params=in_large_pages(_merged(network, saved.params())),  # no name keeps the old ones
            tokenizer=saved.tokenizer,
            context=saved.context,
            head_name=head,
            about={
                "run": str(saved.run.path),
                "step": saved.step,
                "tokenizer": saved.tokenizer.hash,
                "head": head,
            },
        )

    def with_weights(self, weights: str) -> "LanguageModel":
        """Returns the model with its matrices kept in a type of `WEIGHTS` for decoding.

        Products take both factors in that type and are summed in float32. The cache, norms,
        biases, softmax and a head stay as they are, and so does the embedding, whose rows are only
        copied, with its numbers rounded.
        """
        kept = jnp.dtype(weights)

        def rounded(path: Any, x: jax.Array) -> jax.Array:
            names = {getattr(part, "key", None) for part in path}
            if TEMPERATURE in names or x.ndim < 2:
                return x
            return x.astype(kept) if "kernel" in names else x.astype(kept).astype(x.dtype)

        params = self.params
        if any(x.dtype != kept for x in jax.tree.leaves(params)):  # others lie in large pages now
            params = in_large_pages(jax.tree_util.tree_map_with_path(rounded, params))
        about = {**self.about, "weights": weights}
        return dataclasses.replace(self, params=params, about=about, weights=weights)

    @functools.cached_property
    def columns(self) -> Float[jax.Array, "width vocab"]:
        """The unembedding, transposed in memory once and not for each request."""
        columns = jnp.asarray(self.network.unembedding(self.params))
        return in_large_pages(columns if self.weights is None else columns.astype(self.weights))

    @property
    def drawable(self) -> Bool[np.ndarray, " vocab"]:
        """Which entries can be drawn: those that stand for bytes, and the end of text."""
        found = self.tokenizer.byte_lengths > 0
        found[self.tokenizer.eos_id] = True
        return found

    def prompt_ids(self, prompt: str | bytes) -> Int[np.ndarray, " tokens"]:
        """Returns the ids of a prompt, the document start first.

        Bytes may end, or begin, inside a character: what is not UTF-8 becomes the pieces of its
        single bytes.

        Raises:
            UserError: for a byte that the vocabulary has no piece for, or a lone surrogate.
        """
        data = utf8_bytes(prompt) if isinstance(prompt, str) else prompt
        parts: list[Any] = [[self.tokenizer.bos_id]]
        while data:
            try:
                parts.append(self.tokenizer.encode(data.decode()))
                break
            except UnicodeDecodeError as error:
                if error.start:
                    parts.append(self.tokenizer.encode(data[: error.start].decode()))
                parts.append(self._single(data[error.start : error.end]))
                data = data[error.end :]
        return np.concatenate([np.asarray(part, np.int32) for part in parts])

    def _single(self, data: bytes) -> Int[np.ndarray, " tokens"]:
        ids = self.tokenizer.byte_ids[list(data)]
        if (ids < 0).any():
            byte = data[int(np.argmax(ids < 0))]
            raise UserError(
                f"prompt: holds the byte 0x{byte:02X} outside a character, and the vocabulary has "
                "no piece for it; give whole characters"
            )
        return ids


def _merged(network: Network, params: Params) -> Params:
    """Returns parameters with the products of the adapters, if any, added to the matrices."""
    if network.adapter is None:
        return params
    body = {n: part for n, part in params.items() if n not in (TEMPERATURE, ADAPTER)}
    merged = network.adapter.merged(body, params[ADAPTER])
    return {**merged, TEMPERATURE: params[TEMPERATURE]} if TEMPERATURE in params else merged

"""Entropy-Lens: the entropy of what each layer of a model would predict, token by token.

After every layer, the final norm and the unembedding (with the model's soft cap and temperature
head, where it has them) make a distribution over the vocabulary of the layer's state. Its entropy
says how far the layer has decided. The last layer's is the model's own.

References:
    Ali et al., "Entropy-Lens: The Information Signature of Transformer Computations", 2025.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from calibtrain.errors import UserError
from calibtrain.generation.decoder import bucket
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.windows import Window, text_windows
from calibtrain.models import Network
from calibtrain.models.layer_states import layer_states
from calibtrain.readout import Functional, readout

SHANNON = "shannon"
LEAST_CHANGE = 1e-6
"""Nats by which an entropy rises or falls, at least: less is rounding."""
_ROWS = 4  # windows of a pass
_NEAREST_TO_ONE = 1e-3


@dataclasses.dataclass(frozen=True)
class LayerEntropies:
    """The entropies of a text's tokens after every layer, in nats.

    Attributes:
        tokens: ids, the document start left out.
        pieces: bytes of each.
        entropy: by name (`shannon`, or `renyi-A` for the order A): of the distribution that each
            layer makes before the token, so that the last row is what the token was predicted
            with.
        read: tokens before this one are a prompt, which is seen and not counted.
    """

    tokens: Int[np.ndarray, " tokens"]
    pieces: list[bytes]
    entropy: Mapping[str, Float[np.ndarray, "layers tokens"]]
    read: int = 0

    def profile(self, name: str = SHANNON) -> Float[np.ndarray, " layers"]:
        """Returns the mean over the tokens of the entropy after each layer; NaN without tokens."""
        own = self.entropy[name][:, self.read :]
        return own.mean(1) if own.shape[1] else np.full(len(own), np.nan)

    def profiles(self, window: int, name: str = SHANNON) -> Float[np.ndarray, "windows layers"]:
        """Returns the profile of each stretch of so many tokens; the last may be shorter."""
        own = self.entropy[name][:, self.read :]
        return np.array(
            [own[:, first : first + window].mean(1) for first in range(0, own.shape[1], window)]
        ).reshape(-1, len(own))

    def changes(self, name: str = SHANNON) -> tuple[list[int], list[int]]:
        """Returns how many tokens each layer after the first expands, and how many it prunes.

        A layer expands where it raises the entropy (more tokens come into question), and prunes
        where it lowers it; a change of at most `LEAST_CHANGE` is neither.
        """
        change = np.diff(self.entropy[name][:, self.read :], axis=0)
        expanded, pruned = change > LEAST_CHANGE, change < -LEAST_CHANGE
        return expanded.sum(1).tolist(), pruned.sum(1).tolist()


def renyi_entropy(order: float) -> Functional:
    """Returns a functional of logits: the Renyi entropy of an order, in nats.

    H_a = log(sum p^a) / (1 - a). Order 1 is Shannon's entropy, the limit; infinity is the
    min-entropy, -log max p.

    Args:
        order: a, above 0, and not within 0.001 of 1 unless it is 1, where float32 has too few
            digits.

    Raises:
        UserError: for another order.

    Example:
        >>> logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
        >>> print(renyi_entropy(2)(logits, None).round(4), round(math.log(1 / 0.375), 4))
        [0.9808] 0.9808
    """
    if not order > 0 or 0 < abs(order - 1) < _NEAREST_TO_ONE:
        raise UserError(
            f"--renyi: {order:g} is not allowed; a number above 0, 1 itself or at least 0.001 away "
            "from it (inf is the min-entropy)"
        )

    def entropy(logits: Array, labels: Array) -> Array:
        del labels
        total = jax.nn.logsumexp(logits, axis=-1)
        if math.isinf(order):
            return total - jnp.max(logits, axis=-1)
        if order == 1:
            logs = logits - total[:, None]
            p = jnp.exp(logs)
            return -jnp.sum(jnp.where(p > 0, p * logs, 0.0), axis=-1)
        return (jax.nn.logsumexp(order * logits, axis=-1) - order * total) / (1 - order)

    return entropy


def layer_entropies(
    model: LanguageModel,
    texts: Sequence[str | bytes],
    *,
    prompts: Sequence[str | bytes] | None = None,
    renyi: Sequence[float] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[LayerEntropies]:
    """Returns the entropies of texts after every layer.

    The logits are never held whole: `readout` reduces a chunk of tokens at a time, of all layers.
    A text that is longer than the context is read by the windows that generating uses.

    Args:
        model: what is looked into.
        texts: the document start comes before each.
        prompts: what comes before each text and is not counted; None means nothing.
        renyi: orders of Renyi entropies that are computed too.
        progress: is told how many windows are read, and of how many.

    Raises:
        UserError: for a text that the vocabulary cannot spell, or an order that is not allowed.
    """
    for order in renyi:
        renyi_entropy(order)
    before = [model.prompt_ids(each) for each in prompts or [""] * len(texts)]
    ids = [
        np.concatenate([prompt, model.prompt_ids(text)[1:]])
        for prompt, text in zip(before, texts, strict=True)
    ]
    windows = text_windows([len(each) - 1 for each in ids], model.context)
    program = _program(model.network, tuple(dict.fromkeys(map(float, renyi))))
    by_size: dict[int, list[Window]] = {}
    for window in windows:
        size = min(model.context, bucket(window.end - window.start))
        by_size.setdefault(size, []).append(window)
    parts: list[list[tuple[int, dict[str, np.ndarray]]]] = [[] for _ in ids]
    done = 0
    for size, own in by_size.items():
        for first in range(0, len(own), _ROWS):
            some = own[first : first + _ROWS]
            tokens = np.zeros((_ROWS, size), np.int32)
            for row, window in enumerate(some):
                tokens[row, : window.end - window.start] = ids[window.text][
                    window.start : window.end
                ]
            found = jax.tree.map(np.asarray, program(model.params, tokens))
            for row, window in enumerate(some):
                new = slice(window.slot - window.start, window.end - window.start)
                parts[window.text].append(
                    (window.slot, {name: array[:, row, new] for name, array in found.items()})
                )
            done += len(some)
            progress(done, len(windows))
    depth = model.network.config.depth
    names = [SHANNON, *map(renyi_name, dict.fromkeys(renyi))]
    pieces = model.tokenizer.piece_bytes
    return [
        LayerEntropies(
            tokens=own[1:],
            pieces=[pieces[index] for index in own[1:]],
            entropy={name: _joined(part, name, depth) for name in names},
            read=len(prompt) - 1,
        )
        for own, prompt, part in zip(ids, before, parts, strict=True)
    ]


def renyi_name(order: float) -> str:
    """Returns the name of the Renyi entropy of an order.

    Example:
        >>> renyi_name(0.5), renyi_name(math.inf)
        ('renyi-0.5', 'renyi-inf')
    """
    return f"renyi-{order:g}"


def _joined(
    parts: Sequence[tuple[int, Mapping[str, np.ndarray]]], name: str, depth: int
) -> Float[np.ndarray, "layers tokens"]:
    ordered = [found[name] for _, found in sorted(parts, key=lambda part: part[0])]
    return np.concatenate([np.zeros((depth, 0), np.float32), *ordered], axis=1)


@functools.lru_cache(maxsize=4)
def _program(network: Network, orders: tuple[float, ...]) -> Any:
    """Returns the program that reads windows."""
    functionals = {renyi_name(order): renyi_entropy(order) for order in orders}

    @jax.jit
    def read(params: Any, tokens: Array) -> dict[str, Array]:
        states, columns, heat = layer_states(network, params, tokens, jnp.zeros_like(tokens))
        stats = readout(
            states,
            columns,
            jnp.zeros(states.shape[:-1], jnp.int32),
            temperature=heat,
            fields=("entropy",),
            functionals=functionals,
            **network.reading,
        )
        return {SHANNON: stats.entropy, **stats.extra}

    return read

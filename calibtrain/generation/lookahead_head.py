"""A learned look-ahead: the next step's entropy after each token, from the hidden state alone.

H(next | past, v) is predicted by `mean + bias[v] + hidden . w + (hidden A) . B[v]`: the vocabulary
times a few numbers, so that a step costs one pass of the model and not one per candidate. A head
lies in a run's folder, as `lookahead/NAME.npz`, and is read with the step that it was fitted to.
"""

import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from calibtrain.errors import UserError
from calibtrain.storage.disk import make_folder, write_whole
from calibtrain.temperature.saved_head import SavedHead

ABOUT = "about"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._+-]{0,59}")
_DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error)


class LookaheadHead(NamedTuple):
    """The arrays of a head, in nats.

    Attributes:
        mean: of the entropies that it was fitted to.
        bias: of each token.
        linear: of the hidden state.
        left: from the hidden state to a few numbers.
        right: what those numbers are multiplied by for each token.
    """

    mean: Float[Any, ""]
    bias: Float[Any, " vocab"]
    linear: Float[Any, " width"]
    left: Float[Any, "width rank"]
    right: Float[Any, "vocab rank"]


def predicted_entropies(
    head: LookaheadHead, hidden: Float[Array, "rows width"]
) -> Float[Array, "rows vocab"]:
    """Returns the predicted entropy of the step after each token, in nats; never below 0."""
    state = head.mean + hidden @ head.linear
    found = state[:, None] + head.bias + (hidden @ head.left) @ head.right.T
    return jnp.maximum(found, 0.0)


def learned_entropies_after(
    head: LookaheadHead,
    hidden: Float[Array, "rows width"],
    scores: Float[Array, "rows vocab"],
    drawable: Bool[Array, " vocab"],
    top: int,
) -> Float[Array, "rows vocab"]:
    """Returns what `lookahead.entropies_after` does, as the head predicts it.

    Args:
        head: a fitted head.
        hidden: the state that the next token is predicted from.
        scores: log-probabilities of the next token of each text.
        drawable: the entries that can be drawn; others are no candidates.
        top: candidates of each text; infinity stands elsewhere. Those that tie with the last are
            candidates too.
    """
    scores = jnp.where(drawable, scores, -jnp.inf)
    last = jax.lax.top_k(scores, min(top, scores.shape[-1]))[0][:, -1]
    looked = (scores >= last[:, None]) & drawable
    return jnp.where(looked, predicted_entropies(head, hidden), jnp.inf)


def head_file(run: Path, name: str, option: str = "--name") -> Path:
    """Returns the file of a head in a run folder.

    Args:
        run: the run folder.
        name: of the head.
        option: what an error calls the name.

    Raises:
        UserError: for a name that is not allowed.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{option}: {name!r} is not allowed; a letter, then at most 59 letters, digits and "
            ". _ + -"
        )
    return run / "lookahead" / f"{name}.npz"


def divided_by(temperature: SavedHead | None) -> dict[str, str | None]:
    """Returns what the file of a head says of the temperature head that divides the logits."""
    if temperature is None:
        return {"temperature": None, "temperature_sha256": None}
    digest = temperature.about["parameters_sha256"]
    return {"temperature": temperature.name, "temperature_sha256": digest}


def write_head(path: Path, head: LookaheadHead, about: dict[str, Any]) -> None:
    """Writes a head with what is said of it: checkpoint, temperature, how well it predicts."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {
        name: np.asarray(value, np.float32) for name, value in head._asdict().items()
    }
    np.savez(buffer, **{**arrays, ABOUT: np.array(json.dumps(about))})
    make_folder(path.parent)
    write_whole(path, buffer.getvalue())


def read_head(
    run: Path, name: str, *, checkpoint: Mapping[str, Any], temperature: SavedHead | None
) -> tuple[LookaheadHead, dict[str, Any]]:
    """Returns a head of a run, and what is said of it.

    Args:
        run: the run folder.
        name: of the head.
        checkpoint: that it is to be used with, as `runs.latest_checkpoint.checkpoint_facts` says.
        temperature: the temperature head that divides the logits, if any.

    Raises:
        UserError: where there is none of that name, it is damaged, or was fitted to another
            checkpoint or temperature head, or to one of the same name that was fitted again since.
    """
    path = head_file(run, name, "--lookahead-head")
    again = f"fit it again: calibtrain lookahead {run} --name {name} --replace"
    if not path.exists():
        there = ", ".join(sorted(each.stem for each in path.parent.glob("*.npz"))) or "none yet"
        raise UserError(
            f"--lookahead-head: {run} has no {name}; there are: {there}; calibtrain lookahead "
            "fits one"
        )
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            head = LookaheadHead(*(jnp.asarray(arrays[key]) for key in LookaheadHead._fields))
            about = json.loads(str(arrays[ABOUT]))
        own, divided = dict(about["checkpoint"]), about["temperature"]
    except _DAMAGED as error:
        raise UserError(f"{path}: is damaged ({error}); {again}") from None
    for key, value in checkpoint.items():
        if own.get(key) != value:
            raise UserError(
                f"--lookahead-head: {name} was fitted to another checkpoint ({key} {own.get(key)}; "
                f"the run's latest has {value}); {again}"
            )
    now = divided_by(temperature)
    option = "" if temperature is None else f" --temperature {temperature.name}"
    if divided != now["temperature"]:
        was, wanted = (each or "no temperature head" for each in (divided, now["temperature"]))
        raise UserError(
            f"--lookahead-head: {name} was fitted with {was}, and the run is read with {wanted}; "
            f"{again}{option}"
        )
    if divided is not None and about.get("temperature_sha256") is None:
        raise UserError(
            f"--lookahead-head: {name} was fitted by an earlier version, which did not note the "
            f"parameters of the temperature head {divided}; {again}{option}"
        )
    if about.get("temperature_sha256") != now["temperature_sha256"]:
        raise UserError(
            f"--lookahead-head: {name} was fitted with a temperature head {divided} of other "
            f"parameters, which was fitted again since; {again}{option}"
        )
    return head, about

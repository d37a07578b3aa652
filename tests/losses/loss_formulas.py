"""Every loss written directly on a matrix of logits, for float64: no statistics, no chunks."""

import math
from typing import Any

import jax
import jax.numpy as jnp


def softmax(z: Any) -> tuple[Any, Any]:
    log_p = z - jax.scipy.special.logsumexp(z, axis=-1, keepdims=True)
    return log_p, jnp.exp(log_p)


def at(values: Any, y: Any) -> Any:
    return jnp.take_along_axis(values, y[:, None], axis=-1)[:, 0]


def top(z: Any, y: Any) -> tuple[Any, Any]:
    """Confidence, and whether the most probable entry is the target."""
    _, p = softmax(z)
    return p.max(-1), (p.argmax(-1) == y).astype(z.dtype)


def cross_entropy(z: Any, y: Any) -> Any:
    return -at(softmax(z)[0], y)


def label_smoothing(z: Any, y: Any, e: float = 0.05) -> Any:
    target = (1 - e) * jax.nn.one_hot(y, z.shape[-1], dtype=z.dtype) + e / z.shape[-1]
    return -(target * softmax(z)[0]).sum(-1)


def focal(z: Any, y: Any, g: float = 3.0) -> Any:
    log_p = at(softmax(z)[0], y)
    return -((-jnp.expm1(log_p)) ** g) * log_p


def flsd_53(z: Any, y: Any) -> Any:
    return jnp.where(at(softmax(z)[1], y) < 0.2, focal(z, y, 5.0), focal(z, y, 3.0))


def dual_focal(z: Any, y: Any, g: float = 5.0) -> Any:
    log_p, p = softmax(z)
    own = at(p, y)
    other = jnp.where(p < own[:, None], p, 0.0).max(-1)
    return -((-jnp.expm1(at(log_p, y)) + other) ** g) * at(log_p, y)


def entropy_penalty(z: Any, y: Any, b: float = 0.1) -> Any:
    log_p, p = softmax(z)
    return -at(log_p, y) + b * (p * log_p).sum(-1)


def brier(z: Any, y: Any) -> Any:
    return ((softmax(z)[1] - jax.nn.one_hot(y, z.shape[-1], dtype=z.dtype)) ** 2).sum(-1)


def margin_smoothing(z: Any, y: Any, strength: float = 0.1, m: float = 10.0) -> Any:
    distance = z.max(-1, keepdims=True) - z
    return cross_entropy(z, y) + strength * jnp.maximum(distance - m, 0).mean(-1)


def z_loss(z: Any, y: Any, c: float = 1e-4) -> Any:
    return cross_entropy(z, y) + c * jax.scipy.special.logsumexp(z, axis=-1) ** 2


def selective_smoothing(z: Any, y: Any, a: float = 0.5) -> Any:
    log_p, _ = softmax(z)
    return jnp.where(top(z, y)[1] > 0, -(1 - a) * at(log_p, y), -a * log_p.mean(-1))


def poscal(z: Any, y: Any, posterior: Any, strength: float = 1.0) -> Any:
    r, _ = top(z, y)
    q = posterior[jnp.minimum((r * len(posterior)).astype(int), len(posterior) - 1)]
    r = jnp.clip(r, 1e-6, 1 - 1e-6)
    inside = jnp.clip(q, 1e-6, 1 - 1e-6)
    kl = inside * jnp.log(inside / r) + (1 - inside) * jnp.log((1 - inside) / (1 - r))
    return cross_entropy(z, y) + strength * jnp.where(q >= 0, kl, 0.0)


# --- those that couple tokens: a number for all of them ------------------------------------------


def mmce(z: Any, y: Any, w: Any) -> Any:
    r, c = top(z, y)
    kernel = jnp.exp(-jnp.abs(r[:, None] - r[None]) / 0.4)
    pairs = jnp.outer((c - r) * w, (c - r) * w) * kernel
    return jnp.sqrt(pairs.sum() / w.sum() ** 2)


def weighted_mmce(z: Any, y: Any, w: Any) -> Any:
    """Kumar et al. 2018, term by term."""
    r, c = top(z, y)
    kernel = jnp.exp(-jnp.abs(r[:, None] - r[None]) / 0.4)
    right, wrong = c * w, (1 - c) * w
    n, m = right.sum(), wrong.sum()
    both_wrong = (jnp.outer(r * wrong, r * wrong) * kernel).sum() / m**2
    both_right = (jnp.outer((1 - r) * right, (1 - r) * right) * kernel).sum() / n**2
    mixed = (jnp.outer((1 - r) * right, r * wrong) * kernel).sum() / (n * m)
    return jnp.sqrt(both_wrong + both_right - 2 * mixed)


def memberships(r: Any, bins: int, decay: float) -> Any:
    temperature = 1 / (bins**2 * math.log(decay))
    centres = (jnp.arange(bins) + 0.5) / bins
    return jnp.stack(
        [jax.nn.softmax(-((each - centres) ** 2) / temperature) for each in r]
    )  # [tokens, bins]


def soft_binned_ece(z: Any, y: Any, w: Any) -> Any:
    r, c = top(z, y)
    members = memberships(r, 15, 2.0) * w[:, None]
    size = members.sum(0)
    accuracy = (members * c[:, None]).sum(0) / size
    confidence = (members * r[:, None]).sum(0) / size
    return jnp.sqrt((size / w.sum() * (accuracy - confidence) ** 2).sum())


def dece(z: Any, y: Any, w: Any) -> Any:
    r, _ = top(z, y)
    own = at(z, y)
    others = jax.nn.sigmoid((z - own[:, None]) / 0.1)
    rank = 1 + others.sum(-1) - at(others, y)
    right = jnp.maximum(2 - rank, 0)
    members = memberships(r, 15, 2.0) * w[:, None]
    size = members.sum(0)
    gap = (members * (right - r)[:, None]).sum(0) / size
    return (size / w.sum() * jnp.abs(gap)).sum()


def dca(z: Any, y: Any, w: Any) -> Any:
    r, c = top(z, y)
    return jnp.abs((c * w).sum() / w.sum() - (r * w).sum() / w.sum())


def mdca(z: Any, y: Any, w: Any) -> Any:
    mean = (softmax(z)[1] * w[:, None]).sum(0) / w.sum()
    frequency = (jax.nn.one_hot(y, z.shape[-1], dtype=z.dtype) * w[:, None]).sum(0) / w.sum()
    return jnp.abs(mean - frequency).sum()


def avuc(z: Any, y: Any, w: Any) -> Any:
    log_p, p = softmax(z)
    r, c = top(z, y)
    level = -(p * log_p).sum(-1) / math.log(z.shape[-1])
    uncertain = jax.nn.sigmoid((level - 0.5) / 0.1)
    rest = 1 - r
    counts = {
        "AC": (w * c * r * (1 - uncertain)).sum(),
        "AU": (w * c * r * uncertain).sum(),
        "IC": (w * (1 - c) * rest * (1 - uncertain)).sum(),
        "IU": (w * (1 - c) * rest * uncertain).sum(),
    }
    good = jnp.maximum(counts["AC"] + counts["IU"], 1e-6)
    return jnp.log(1 + (counts["AU"] + counts["IC"]) / good)


def balanced_selective_smoothing(z: Any, y: Any, w: Any, a: float = 0.5) -> Any:
    log_p, _ = softmax(z)
    _, c = top(z, y)
    right = (w * c * -(1 - a) * at(log_p, y)).sum() / jnp.maximum((w * c).sum(), 1e-30)
    wrong = (w * (1 - c) * -a * log_p.mean(-1)).sum() / jnp.maximum((w * (1 - c)).sum(), 1e-30)
    return right + wrong

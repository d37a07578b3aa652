"""Signatures: how a figure was made, in one short string beside it, as in sacreBLEU.

    event:token|conf:max|bins:15|scheme:width|edges:left-open|T:1|corpus:1f0a93c2|tok:77ab01de|v:0.1.0

Two figures may be compared if their signatures are equal; otherwise `differences` says in which
keys they differ. Figures of bytes and words may be compared where only `tok` differs. Every
signature has these keys, in this order:

| key | says |
|---|---|
| event | what is predicted: `token`, `byte`, `word` (over all tokenisations of the text); |
|       | `canonical-byte.local`, `canonical-word.local` (over those alone that the tokenizer |
|       | writes, renormalised at each token); `candidate` (an answer), `prediction` (any); |
|       | `candidate.top` and `candidate.every`, with how candidates were scored |
| conf | which probability is the confidence: `max`, `top5` (of the five largest), `all`, `each` |
|      | (of every candidate), `greedy` (a product of greedy choices), or one that was `given` |
| bins | number of bins; `none` for a figure without bins |
| scheme | `width`, `mass`, `sweep`; `kernel` (SmoothECE); `none` |
| edges | `left-open` (a bin is open on the left, closed on the right), `exact-mass`, `none` |
| T | temperature that divided the logits; or the name of the head that supplied it |
| corpus, tok | first 8 digits of the hash of the evaluated text (or predictions), and of the |
|             | tokenizer; `none` without one |
| v | version of calibtrain |

References:
    Post, "A Call for Clarity in Reporting BLEU Scores", WMT 2018.
"""

import contextlib
import dataclasses
import re

from calibtrain.metrics.arguments import require_kind, require_number, require_whole

NO_HASH = "none"
"""Stands for the tokenizer of predictions that were made without one that is known."""

_KEYS = {
    "event": "event",
    "confidence": "conf",
    "bins": "bins",
    "scheme": "scheme",
    "edges": "edges",
    "temperature": "T",
    "corpus": "corpus",
    "tokenizer": "tok",
    "version": "v",
}
_VALUE = re.compile(r"[A-Za-z0-9._+-]+")
_EDGES = {"width": "left-open", "mass": "exact-mass", "sweep": "exact-mass"}


@dataclasses.dataclass(frozen=True)
class Signature:
    """What two figures must have in common to be comparable; `str` gives the signature.

    Attributes:
        corpus: hash of the evaluated text, in hexadecimal; 8 digits are kept.
        tokenizer: hash of the tokenizer, likewise; or `NO_HASH`.
        version: of calibtrain.
        event: what is predicted.
        confidence: which probability is the confidence.
        bins: number of bins; None for a figure without bins.
        scheme: how bins are made; `none` for a figure without bins.
        temperature: a number, or the name of a head.
        edges: which edge belongs to a bin; default: the rule of this package for the scheme.

    Raises:
        ValueError: naming the key, for a value that is not letters, digits and . _ + -

    Example:
        >>> print(Signature(corpus="1f0a93c2", tokenizer="77ab01de", version="0.1.0", bins=10))
        event:token|conf:max|bins:10|scheme:width|edges:left-open|T:1|corpus:1f0a93c2|tok:77ab01de|v:0.1.0
    """

    corpus: str
    tokenizer: str
    version: str
    event: str = "token"
    confidence: str = "max"
    bins: int | None = 15
    scheme: str = "width"
    temperature: float | str = 1.0
    edges: str = ""

    def __post_init__(self) -> None:
        for name in _KEYS:
            if name not in ("bins", "temperature"):
                require_kind(name, getattr(self, name), str)
        for name in ("corpus", "tokenizer"):
            digits = getattr(self, name)[:8]
            if digits == NO_HASH and name == "tokenizer":
                continue
            if not re.fullmatch("[0-9a-f]{8}", digits):
                raise ValueError(
                    f"{name}: {getattr(self, name)!r} does not begin with 8 hex digits"
                )
            object.__setattr__(self, name, digits)
        if not self.edges:
            object.__setattr__(self, "edges", _EDGES.get(self.scheme, "none"))
        if self.bins is not None:
            object.__setattr__(self, "bins", require_whole("bins", self.bins, 1))
        if not isinstance(self.temperature, str):
            temperature = require_number("temperature", self.temperature)
            if not 0 < temperature < float("inf"):
                raise ValueError(f"temperature: {self.temperature} is not allowed; above 0")
            object.__setattr__(self, "temperature", temperature)
        for name, text in self._texts().items():
            if not _VALUE.fullmatch(text):
                raise ValueError(f"{name}: {text!r} is not allowed; letters, digits and . _ + -")

    def _texts(self) -> dict[str, str]:
        texts = {name: str(getattr(self, name)) for name in _KEYS}
        texts["bins"] = "none" if self.bins is None else str(self.bins)
        if isinstance(self.temperature, float):
            texts["temperature"] = repr(self.temperature).removesuffix(".0")
        return texts

    def __str__(self) -> str:
        return "|".join(f"{_KEYS[name]}:{text}" for name, text in self._texts().items())


def parse_signature(text: str) -> Signature:
    """Returns the signature that a string stands for.

    Raises:
        ValueError: for a key that is missing, unknown, repeated or out of order, or a value that is
            not allowed.

    Example:
        >>> text = str(Signature(corpus="1f0a93c2", tokenizer="77ab01de", version="0.1.0"))
        >>> parse_signature(text).scheme
        'width'
    """
    require_kind("text", text, str)
    parts = [part.partition(":") for part in text.split("|")]
    keys = [key for key, _, _ in parts]
    if keys != list(_KEYS.values()):
        raise ValueError(f"signature: {text!r} must have the keys {', '.join(_KEYS.values())}")
    found = {name: value for name, (_, _, value) in zip(_KEYS, parts, strict=True)}
    if found["bins"] != "none" and not found["bins"].isdecimal():
        raise ValueError(f"bins: {found['bins']!r} is not allowed; a whole number or none")
    if not found["edges"]:
        raise ValueError("edges: '' is not allowed; letters, digits and . _ + -")
    bins = None if found["bins"] == "none" else int(found["bins"])
    temperature: float | str = found["temperature"]
    with contextlib.suppress(ValueError):  # it may be the name of a head
        temperature = float(temperature)
    rest = {key: value for key, value in found.items() if key not in ("bins", "temperature")}
    return Signature(bins=bins, temperature=temperature, **rest)


def differences(one: Signature, other: Signature) -> dict[str, tuple[str, str]]:
    """Returns the keys in which two signatures differ, each with both values.

    Where there are none, the figures may be compared.

    Example:
        >>> one = Signature(corpus="1f0a93c2", tokenizer="77ab01de", version="0.1.0")
        >>> differences(one, dataclasses.replace(one, bins=10))
        {'bins': ('15', '10')}
    """
    require_kind("one", one, Signature)
    require_kind("other", other, Signature)
    mine, theirs = one._texts(), other._texts()
    return {_KEYS[n]: (mine[n], theirs[n]) for n in _KEYS if mine[n] != theirs[n]}

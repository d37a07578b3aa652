"""Texts of a byte mixture: drawn or chosen byte by byte from the average of the members.

Text i of a request is a function of the prompt, the seed and i: its draws come from a stream of
their own. What shares its batch changes the members' rounding alone (about 1e-6 nats).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import get_args

import numpy as np
from jaxtyping import Float

from calibtrain.data.corpora.documents import END
from calibtrain.ensembles.byte_mixture import Average, ByteMixture, Weighting
from calibtrain.ensembles.members import Member, begin, prompt_bytes
from calibtrain.ensembles.texts import EnsembleText, Proposal, Step, checked_limit, spelled
from calibtrain.errors import UserError
from calibtrain.generation.byte_beam import STOP
from calibtrain.generation.growing_text import GrowingText, Limits
from calibtrain.generation.next_byte import Beam

LANES = 32
"""Texts that are decoded side by side, at most."""
_PIECES = tuple(map(spelled, range(END + 1)))
OnPiece = Callable[[int, str], None]
"""Is told the number of a text and characters that were added to it."""


@dataclasses.dataclass(frozen=True)
class Mixture:
    """How members are averaged at each byte.

    Attributes:
        average: linear or geometric. The geometric mean is normalised at each byte, and is not
            the product of the models over texts.
        weighting: fixed or posterior. Posterior weights follow what the members gave to the text
            since the prompt.
        weights: of each member, above 0; None means equal ones.

    Raises:
        ValueError: for a value that is not allowed, in one line that names it.
    """

    average: Average = "linear"
    weighting: Weighting = "posterior"
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("average", Average), ("weighting", Weighting)):
            if (value := getattr(self, name)) not in get_args(allowed):
                raise ValueError(f"{name}: {value!r}; allowed are {', '.join(get_args(allowed))}")
        if self.weights is not None and not all(
            math.isfinite(weight) and weight > 0 for weight in self.weights
        ):
            raise ValueError(f"weights: {list(self.weights)}: must be above 0")

    def of(self, readers: Sequence[object]) -> ByteMixture:
        """Returns the average of next-byte distributions."""
        return ByteMixture(
            readers,  # type: ignore[arg-type]
            weights=self.weights,
            average=self.average,
            weighting=self.weighting,
        )


def mixture_texts(
    members: Sequence[Member],
    prompts: Sequence[str | bytes],
    mixture: Mixture | None = None,
    *,
    samples: int = 1,
    seed: int = 0,
    greedy: bool = False,
    max_bytes: int | None = None,
    beam: Beam | None = None,
    explain: bool = False,
    on_piece: OnPiece | None = None,
) -> list[EnsembleText]:
    """Returns `samples` texts for each prompt, in the order of the prompts.

    Args:
        members: what is averaged.
        prompts: texts, or bytes, which may end inside a character. An empty one begins a document.
        mixture: how members are averaged; None means `Mixture()`.
        samples: texts of each prompt.
        seed: of the request.
        greedy: whether the most probable byte is taken, and none drawn.
        max_bytes: most bytes of a text; None means `texts.BYTES`.
        beam: how many tokenisations of each text a member follows; None means `Beam()`.
        explain: whether texts say how they came about.
        on_piece: is told of complete characters as they come.

    Raises:
        UserError: for a number that is not allowed, or a prompt that a member cannot spell.
        ValueError: for weights that are not one a member.
    """
    if samples < 1:
        raise UserError(f"samples: {samples} is not allowed; at least 1")
    limits = Limits(None, checked_limit(max_bytes), (), loop=False)
    data = [prompt_bytes(prompt) for prompt in prompts]
    texts = [
        _Text(number, prompts[number // samples], data[number // samples], limits, seed)
        for number in range(len(prompts) * samples)
    ]
    if not texts:
        return []
    lanes = min(LANES, len(texts))
    readers = [member.next_byte(lanes, beam) for member in members]
    for first in range(0, len(texts), lanes):
        some = texts[first : first + lanes]
        begin(members, readers, [data[text.grown.number // samples] for text in some])
        _decode(
            (mixture or Mixture()).of(readers),
            [member.name for member in members],
            some,
            greedy=greedy,
            explain=explain,
            on_piece=on_piece,
        )
    return [text.found([member.name for member in members]) for text in texts]


class _Text:
    """A text of a request while it is decoded."""

    def __init__(self, number: int, prompt: str | bytes, data: bytes, limits: Limits, seed: int):
        self.grown = GrowingText(number, np.frombuffer(data, np.uint8), _PIECES, END, limits)
        self.rng = np.random.default_rng((seed, number))
        self.steps: list[Step] = []
        self._prompt, self._nats = prompt, 0.0
        self._of_members: Float[np.ndarray, " members"] | None = None

    def read(self, symbol: int, joint: float, each: Float[np.ndarray, " members"]) -> None:
        """Reads a symbol that the ensemble and its members gave these probabilities."""
        with np.errstate(divide="ignore"):
            nats = -np.log(each)
        self._nats -= math.log(joint)
        self._of_members = nats if self._of_members is None else self._of_members + nats
        self.grown.read(np.array([symbol]))

    def found(self, names: Sequence[str]) -> EnsembleText:
        """Returns the text, which is over."""
        nats = np.zeros(len(names)) if self._of_members is None else self._of_members
        return EnsembleText(
            text=self.grown.text,
            data=bytes(self.grown.data),
            finish_reason=self.grown.reason,
            prompt=self._prompt,
            information_bits=self._nats / math.log(2),
            members=dict(zip(names, (nats / math.log(2)).tolist(), strict=True)),
            steps=self.steps,
        )


def _decode(
    mixture: ByteMixture,
    names: Sequence[str],
    texts: Sequence[_Text],
    *,
    greedy: bool,
    explain: bool,
    on_piece: OnPiece | None,
) -> None:
    """Decodes texts side by side until each is over."""
    while any(not text.grown.reason for text in texts):
        probability = mixture.predict()
        symbols = np.full(mixture.lanes, STOP)
        for lane, text in enumerate(texts):
            if text.grown.reason:
                continue
            own = probability[lane]
            if not own.any():
                text.grown.reason = "disagreement"
            else:
                symbol = int(own.argmax()) if greedy else draw(own, text.rng.random())
                if explain:
                    text.steps.append(_step(mixture, names, lane, symbol, len(text.grown.data)))
                text.read(symbol, float(own[symbol]), mixture.predicted[:, lane, symbol])
                if not text.grown.reason:
                    symbols[lane] = symbol
            if on_piece is not None and (piece := text.grown.piece()):
                on_piece(text.grown.number, piece)
        mixture.read(symbols)


def draw(probability: Float[np.ndarray, " symbols"], uniform: float) -> int:
    """Returns the symbol at a share of the mass.

    Example:
        >>> [draw(np.array([0.5, 0.0, 0.5]), share) for share in (0.0, 0.4, 0.5, 0.99)]
        [0, 0, 2, 2]
    """
    running = np.cumsum(probability)
    found = int(np.searchsorted(running, uniform * running[-1], side="right"))
    return min(found, int(np.flatnonzero(probability)[-1]))


def _step(mixture: ByteMixture, names: Sequence[str], lane: int, symbol: int, offset: int) -> Step:
    each, weights = mixture.predicted[:, lane], mixture.weights[:, lane]
    return Step(
        byte_offset=offset,
        chosen=spelled(symbol),
        ended=symbol == END,
        proposals=tuple(
            Proposal(name, spelled(int(own.argmax())), float(own[symbol]), float(weight))
            for name, own, weight in zip(names, each, weights, strict=True)
        ),
    )

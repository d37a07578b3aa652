"""Minimum Bayes risk decoding: of several samples, the text most similar to all of them.

References:
    Kumar and Byrne (2004), Minimum Bayes-Risk Decoding for Statistical Machine Translation.
    Eikema and Aziz (2020), Is MAP Decoding All You Need?
"""

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from calibtrain.generation.similarity import UTILITIES, Utility


@dataclasses.dataclass(frozen=True)
class Choice:
    """What minimum Bayes risk decoding chose.

    Attributes:
        index: of the chosen candidate.
        text: the candidate itself.
        expected_utilities: the mean utility of each candidate against the samples, 0 to 100.
        comparisons: pairs of texts that were compared.
        seconds: how long it took.
    """

    index: int
    text: str
    expected_utilities: Float[np.ndarray, " candidates"]
    comparisons: int
    seconds: float


def choose(
    samples: Sequence[str], utility: Utility | str, candidates: Sequence[str] | None = None
) -> Choice:
    """Returns the candidate of the highest mean utility against the samples: argmax of
    `mean over s of u(candidate, s)`.

    A sample that occurs n times counts n times, and is compared once. If samples are candidates
    themselves, each is compared with itself too, like with any other. Sums are exactly rounded, so
    that the order of the samples does not matter; of equal candidates the first is chosen.

    Args:
        samples: texts drawn from the model, at least one.
        utility: how similar two texts are; its name in `UTILITIES`, or a function.
        candidates: the texts to choose from. Default: the samples.

    Raises:
        ValueError: where there is nothing to choose from or to compare with, or for an unknown
            name.
        UserError: where the utility needs a package that is not installed.

    Example:
        >>> choose(["a b c", "a b d", "x y z"], "token-f1").text
        'a b c'
    """
    candidates = samples if candidates is None else candidates
    for name, texts in (("samples", samples), ("candidates", candidates)):
        if not len(texts):
            raise ValueError(f"{name}: are empty: at least one text is needed")
    function = utility_of(utility)
    began = time.perf_counter()
    counts = Counter(samples)
    references, weights = list(counts), np.array(list(counts.values()))
    expected = {}
    for candidate in candidates:
        if candidate not in expected:
            weighted = weights * function(candidate, references)
            expected[candidate] = math.fsum(weighted.tolist()) / len(samples)
    scores = np.array([expected[candidate] for candidate in candidates])
    index = int(np.argmax(scores))
    seconds = time.perf_counter() - began
    return Choice(index, candidates[index], scores, len(expected) * len(references), seconds)


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far utilities agree on what to choose.

    Attributes:
        names: of the utilities.
        same: share of prompts for which two utilities choose the same text; 1 on the diagonal.
        kept: of the expected utility that the column's utility gives to its own choice, the share
            that it gives to the row's choice, averaged over prompts; 1 on the diagonal.
        distinct: mean number of distinct samples of a prompt; where it is 1, all must agree.
        comparisons: pairs of texts that each utility compared.
        seconds: how long each took.
    """

    names: tuple[str, ...]
    same: Float[np.ndarray, "utilities utilities"]
    kept: Float[np.ndarray, "utilities utilities"]
    distinct: float
    comparisons: int
    seconds: tuple[float, ...]


def agreement(
    prompts: Sequence[Sequence[str]], utilities: Mapping[str, Utility] = UTILITIES
) -> Agreement:
    """Compares the choices of utilities among the same samples of several prompts.

    Args:
        prompts: the samples of each prompt.
        utilities: by name.

    Raises:
        ValueError: where there are no prompts, or a prompt has no samples.
        UserError: where a utility needs a package that is not installed.

    Example:
        >>> names = {name: UTILITIES[name] for name in ("token-f1", "edit")}
        >>> found = agreement([["a b c", "a b d", "a x d"], ["b a", "a b", "ab"]], names)
        >>> found.same.tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """
    if not len(prompts):
        raise ValueError("prompts: are empty: at least one is needed")
    chosen = [[choose(samples, each) for each in utilities.values()] for samples in prompts]
    same = np.array([[[a.text == b.text for b in row] for a in row] for row in chosen])
    kept = np.array([[[_share(b, a.index) for b in row] for a in row] for row in chosen])
    return Agreement(
        names=tuple(utilities),
        same=same.mean(axis=0),
        kept=kept.mean(axis=0),
        distinct=float(np.mean([len(set(samples)) for samples in prompts])),
        comparisons=sum(row[0].comparisons for row in chosen),
        seconds=tuple(
            math.fsum(row[column].seconds for row in chosen) for column in range(len(utilities))
        ),
    )


def utility_of(utility: Utility | str) -> Utility:
    """Returns a utility by its name; a function is returned as it is.

    Raises:
        ValueError: for an unknown name.
    """
    if not isinstance(utility, str):
        return utility
    if utility not in UTILITIES:
        raise ValueError(f"utility: {utility!r}: must be one of {', '.join(UTILITIES)}")
    return UTILITIES[utility]


def _share(choice: Choice, index: int) -> float:
    """The share of the best expected utility that another candidate has; 1 where all have 0."""
    most = choice.expected_utilities[choice.index]
    return float(choice.expected_utilities[index] / most) if most else 1.0

"""How far samples of one prompt agree: by the counts of their answers, or by a similarity of texts.

Every measure of counts is 1 where all samples give one answer. Samples without an answer are in the
number of samples and in no count, so that they lower agreement; where no sample has an answer, no
measure is defined.

References:
    Lyu et al., "Calibrating Large Language Models with Sample Consistency", AAAI 2025 (agreement,
        entropy, first-second distance).
    Lin et al., "Generating with Confidence: Uncertainty Quantification for Black-box Large Language
        Models", TMLR 2024 (degree matrix, eccentricity, eigenvalues).
    Vashurin et al., "CoCoA: A Minimum Bayes Risk Framework Bridging Confidence and Consistency for
        Uncertainty Quantification in LLMs", 2025.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

SPLITS = 200
"""Random halves that the held-out agreement is a mean over."""
SMALL_EIGENVALUE = 0.9
"""Eigenvectors of the Laplacian below it tell texts apart (Lin et al.)."""

Similarity = Float[np.ndarray, "samples samples"]


@dataclasses.dataclass(frozen=True)
class AnswerConsistency:
    """How far the answers of samples agree. None stands for what is not defined.

    Attributes:
        samples: all of them, n.
        answers: the answers and how many samples gave each, the most frequent first.
        without_answer: samples in which none was found.
        agreement: f1 / n, with f1 the count of the most frequent answer. As the answer is chosen by
            the same samples, it is biased upwards.
        entropy: 1 - H / log2 u, for H the entropy in bits of the shares of the u answers that were
            found; 1 for a single answer. It is not monotone in how far samples agree: twenty
            against twenty give 0, and twenty alike with twenty that all differ 0.28.
        entropy_by_samples: 1 - H / log2 n, which is; n are the samples with an answer.
        fsd: (f1 - f2) / n, the distance of the first from the second; f2 is 0 for a single answer.
        held_out: the agreement with an answer that is chosen on one half of the samples, measured
            on the other half; both ways round, and a mean over random halves. Of answers that tie
            in the first half, each is chosen equally often.
    """

    samples: int
    answers: list[tuple[str, int]]
    without_answer: int
    agreement: float | None
    entropy: float | None
    entropy_by_samples: float | None
    fsd: float | None
    held_out: float | None


def answer_consistency(answers: Sequence[str | None], *, seed: int = 0) -> AnswerConsistency:
    """Returns how far answers agree.

    Args:
        answers: of each sample, None where none was found; at least one sample.
        seed: of the halves of `held_out`.

    Raises:
        ValueError: without samples.

    Example:
        >>> found = answer_consistency(["4", "4", "4", "5", None])
        >>> found.agreement, found.fsd, round(found.entropy, 4), found.without_answer
        (0.6, 0.4, 0.1887, 1)
    """
    if not answers:
        raise ValueError("answers: are empty: at least one sample is needed")
    found = Counter(answer for answer in answers if answer is not None)
    counts = sorted(found.items(), key=lambda each: (-each[1], each[0]))
    n = len(answers)
    if not counts:
        return AnswerConsistency(n, [], n, None, None, None, None, None)
    valid = found.total()
    shares = np.array([count for _, count in counts]) / valid
    bits = float(-(shares * np.log2(shares)).sum())
    first, second = counts[0][1], counts[1][1] if len(counts) > 1 else 0
    return AnswerConsistency(
        samples=n,
        answers=counts,
        without_answer=n - valid,
        agreement=first / n,
        entropy=max(0.0, 1 - bits / math.log2(len(counts))) if len(counts) > 1 else 1.0,
        entropy_by_samples=max(0.0, 1 - bits / math.log2(valid)) if valid > 1 else 1.0,
        fsd=(first - second) / n,
        held_out=held_out_agreement(answers, seed=seed),
    )


def held_out_agreement(
    answers: Sequence[str | None], *, splits: int = SPLITS, seed: int = 0
) -> float | None:
    """Returns the share of one half of samples that give the most frequent answer of the other.

    With an odd number, one half is larger by one. None for one sample, and where no half has an
    answer to choose.

    Args:
        answers: of each sample, None where none was found.
        splits: random halves, each of which is used both ways round.
        seed: of the halves.

    Example:
        >>> held_out_agreement(["4"] * 10), held_out_agreement(["4"])
        (1.0, None)
    """
    n = len(answers)
    if n < 2:
        return None
    names = sorted({answer for answer in answers if answer is not None})
    codes = np.array([-1 if each is None else names.index(each) for each in answers])
    given = codes[:, None] == np.arange(len(names))  # sample, answer
    orders = np.random.default_rng(seed).permuted(np.tile(np.arange(n), (splits, 1)), axis=1)
    found = []
    for ends in ((0, n // 2), (n // 2, n)):
        chosen = given[orders[:, slice(*ends)]].sum(1)  # split, answer
        others = given.sum(0) - chosen
        best = (chosen == chosen.max(1, initial=0, keepdims=True)) & (chosen > 0)
        ties = best.sum(1)
        share = (best * others).sum(1) / (n - (ends[1] - ends[0]))
        found += (share[ties > 0] / ties[ties > 0]).tolist()
    return math.fsum(found) / len(found) if found else None


def similarity_matrix(
    texts: Sequence[str], utility: Callable[[str, Sequence[str]], Float[np.ndarray, " texts"]]
) -> Similarity:
    """Returns how similar each two of the texts are, from 0 to 1, symmetric, 1 on the diagonal.

    A utility that depends on which text is the reference (chrF, BLEU) is averaged over both ways.

    Args:
        texts: at least one.
        utility: of `calibtrain.generation.similarity`, from 0 to 100.

    Example:
        >>> from calibtrain.generation.similarity import jaccard
        >>> similarity_matrix(["the cat", "the dog"], jaccard).round(2).tolist()
        [[1.0, 0.33], [0.33, 1.0]]
    """
    distinct = list(dict.fromkeys(texts))
    places = [distinct.index(text) for text in texts]
    found = np.stack([utility(text, distinct) for text in distinct]) / 100
    found = (found + found.T) / 2
    np.fill_diagonal(found, 1.0)
    return np.asarray(found[np.ix_(places, places)])


def degree_uncertainty(similarity: Similarity) -> float:
    """Returns trace(n I - D) / n^2: the mean dissimilarity of pairs, each with itself included.

    0 where all texts are alike, and at most 1 - 1 / n. D holds the rows' sums (Lin et al.).

    Example:
        >>> degree_uncertainty(np.array([[1.0, 0.5], [0.5, 1.0]]))
        0.25
    """
    return float(1 - similarity.mean())


def eigenvalue_uncertainty(similarity: Similarity) -> float:
    """Returns the sum of max(0, 1 - λ) over the eigenvalues of the normalised Laplacian.

    A continuous count of the meanings: 1 where all texts are alike, n where none has anything in
    common with another (Lin et al.).

    Example:
        >>> eigenvalue_uncertainty(np.eye(3)), round(eigenvalue_uncertainty(np.ones((3, 3))), 6)
        (3.0, 1.0)
    """
    values, _ = _laplacian(similarity)
    return float(np.maximum(0, 1 - values).sum())


def eccentricity(similarity: Similarity) -> float:
    """Returns how far the texts lie from their centre, in the Laplacian's small eigenvectors.

    0 where all texts are alike (Lin et al., with the threshold that they use).

    Example:
        >>> round(eccentricity(np.ones((3, 3))), 6)
        0.0
    """
    values, vectors = _laplacian(similarity)
    kept = vectors[:, values < SMALL_EIGENVALUE]
    return float(np.linalg.norm(kept - kept.mean(0)))


def cocoa(information: float, similarity: Float[np.ndarray, " others"]) -> float:
    """Returns the uncertainty of a text: its information times its mean dissimilarity to others.

    Vashurin et al. with -log of the probability; the unit is that of the information.

    Args:
        information: -log of the text's probability.
        similarity: to the other samples, from 0 to 1; without others the factor is not defined.

    Raises:
        ValueError: without other samples.

    Example:
        >>> cocoa(8.0, np.array([1.0, 0.5]))
        2.0
    """
    if not len(similarity):
        raise ValueError("similarity: is empty: there is no other sample to agree with")
    return float(information * (1 - similarity.mean()))


def _laplacian(
    similarity: Similarity,
) -> tuple[Float[np.ndarray, " samples"], Float[np.ndarray, "samples samples"]]:
    """Returns the eigenvalues and eigenvectors of I - D^(-1/2) W D^(-1/2)."""
    degrees = similarity.sum(1)
    scaled = similarity / np.sqrt(degrees[:, None] * degrees)
    values, vectors = np.linalg.eigh(np.eye(len(similarity)) - scaled)
    return values, vectors

"""Can a text's label be told from a few numbers of it? Nearest neighbours against guessing.

The protocol of Entropy-Lens: k nearest neighbours on the profiles of texts, cross-validated, scored
by the area under the ROC curve of each label against the rest, beside a classifier that only knows
how frequent the labels are.

References:
    Ali et al., "Entropy-Lens: The Information Signature of Transformer Computations", 2025.
    Nadeau & Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003 (the test).
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from calibtrain.errors import UserError
from calibtrain.metrics.ranking import area_under_roc


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """How labels are told apart.

    Attributes:
        neighbours: k; fewer where a training set has fewer texts.
        folds: each has the same shares of labels as far as they go.
        seed: of folds and guesses.
    """

    neighbours: int = 29
    folds: int = 10
    seed: int = 0

    def check(self, labels: Sequence[str]) -> None:
        """Raises a UserError for numbers that are not allowed, or labels that are too few."""
        if self.neighbours < 1:
            raise UserError(f"--neighbours: {self.neighbours} is not allowed; at least 1")
        if self.folds < 2:
            raise UserError(f"--folds: {self.folds} is not allowed; at least 2")
        counts = Counter(labels)
        if len(counts) < 2:
            raise UserError(
                f"--labelled: all texts have the label {labels[0]!r}; give at least two"
            )
        rare = min(sorted(counts), key=counts.__getitem__)
        if counts[rare] < self.folds:
            raise UserError(
                f"--labelled: the label {rare!r} has {counts[rare]} texts, and each of "
                f"{self.folds} folds needs one; give more, or lower --folds"
            )


@dataclasses.dataclass(frozen=True)
class Separation:
    """How well labels are told apart; areas are means over labels, each against the rest.

    Attributes:
        labels: in order, each with its number of texts.
        neighbours: k.
        folds: area under the ROC curve in each fold.
        dummy: the same of guesses that are drawn from the labels of the training folds.
        area: mean over the folds; 1/2 for guessing.
        dummy_area: likewise.
        lower, upper: 95 % interval of the difference of the two. The folds' training sets overlap,
            so that its variance is corrected (Nadeau and Bengio).
        p: two-sided p-value of no difference, by the same corrected paired t-test; 1 where both
            agree in every fold.
    """

    labels: dict[str, int]
    neighbours: int
    folds: list[float]
    dummy: list[float]
    area: float
    dummy_area: float
    lower: float
    upper: float
    p: float


def separation(
    features: Float[np.ndarray, "texts features"],
    labels: Sequence[str],
    by: CrossValidation | None = None,
) -> Separation:
    """Returns how well k nearest neighbours (Euclidean) tell labels apart.

    Args:
        features: of each text.
        labels: of each text; at least two different ones.
        by: how; None means the defaults.

    Raises:
        UserError: for numbers that are not allowed, one label only, or one with fewer texts than
            folds.

    Example:
        >>> features = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
        >>> separation(features, ["a"] * 3 + ["b"] * 3, CrossValidation(1, folds=3)).area
        1.0
    """
    by = by or CrossValidation()
    by.check(labels)
    folds, seed, neighbours = by.folds, by.seed, by.neighbours
    names = sorted(set(labels))
    codes = np.array([names.index(label) for label in labels])
    member = stratified_folds(codes, folds, seed)
    rng = np.random.default_rng(seed)
    found, guessed = [], []
    for fold in range(folds):
        train, test = member != fold, member == fold
        shares = neighbour_shares(
            features[train], codes[train], features[test], neighbours, len(names)
        )
        prior = np.bincount(codes[train], minlength=len(names)) / train.sum()
        draws = np.eye(len(names))[rng.choice(len(names), test.sum(), p=prior)]
        found.append(area_one_against_rest(shares, codes[test]))
        guessed.append(area_one_against_rest(draws, codes[test]))
    difference = np.subtract(found, guessed)
    lower, upper, p = _corrected_t(difference, test_share=1 / (folds - 1))
    return Separation(
        labels=dict(zip(names, np.bincount(codes).tolist(), strict=True)),
        neighbours=min(neighbours, int((member != 0).sum())),
        folds=found,
        dummy=guessed,
        area=float(np.mean(found)),
        dummy_area=float(np.mean(guessed)),
        lower=lower,
        upper=upper,
        p=p,
    )


def stratified_folds(
    codes: Int[np.ndarray, " texts"], folds: int, seed: int
) -> Int[np.ndarray, " texts"]:
    """Returns the fold of each text: those of a label are dealt out in turn, in a random order."""
    rng = np.random.default_rng(seed)
    member = np.zeros(len(codes), np.int64)
    dealt = 0
    for code in np.unique(codes):
        own = rng.permutation(np.flatnonzero(codes == code))
        member[own] = (dealt + np.arange(len(own))) % folds
        dealt += len(own)
    return member


def neighbour_shares(
    train: Float[np.ndarray, "train features"],
    codes: Int[np.ndarray, " train"],
    test: Float[np.ndarray, "test features"],
    neighbours: int,
    labels: int,
) -> Float[np.ndarray, "test labels"]:
    """Returns the share of each label among the nearest neighbours of each text.

    Of neighbours at one distance, those that come first are taken.
    """
    k = min(neighbours, len(train))
    distance = ((test[:, None] - train) ** 2).sum(-1)
    nearest = codes[np.argsort(distance, axis=1, kind="stable")[:, :k]]
    return (nearest[:, :, None] == np.arange(labels)).mean(1)


def area_one_against_rest(
    shares: Float[np.ndarray, "texts labels"], codes: Int[np.ndarray, " texts"]
) -> float:
    """Returns the area under the ROC curve of each label against the rest, a mean over labels.

    Example:
        >>> area_one_against_rest(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]))
        1.0
    """
    return float(
        np.mean([float(area_under_roc(own, codes == label)) for label, own in enumerate(shares.T)])
    )


def _corrected_t(
    difference: Float[np.ndarray, " folds"], test_share: float
) -> tuple[float, float, float]:
    """Returns the 95 % interval of a mean over folds, and the p-value of its being 0.

    Args:
        difference: of each fold.
        test_share: texts of a test fold, over those that it was trained on.
    """
    from scipy.special import stdtr, stdtrit

    count, mean = len(difference), float(difference.mean())
    error = math.sqrt((1 / count + test_share) * float(difference.var(ddof=1)))
    reach = float(stdtrit(count - 1, 0.975)) * error
    if error == 0:
        return mean, mean, 1.0 if mean == 0 else 0.0
    return mean - reach, mean + reach, 2 * float(stdtr(count - 1, -abs(mean) / error))

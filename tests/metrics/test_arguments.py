"""Every public name of `calibtrain.metrics` reads arrays of any library, or names what is wrong."""

import dataclasses
import decimal
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from calibtrain import metrics
from calibtrain.readout import TokenStats

CONFIDENCE = np.array([0.25, 0.5, 0.75, 1.0, 0.125, 0.5, 0.0, 0.875])
CORRECT = np.array([0.0, 1, 1, 1, 0, 0, 0, 1])
WEIGHTS = np.array([1.0, 2, 1, 1, 3, 1, 1, 2])
PAIR = {"confidence": CONFIDENCE, "correct": CORRECT, "weights": WEIGHTS}
ROWS = {
    "probabilities": np.tile([0.125, 0.25, 0.125, 0.5], (8, 1)),
    "labels": np.array([0, 1, 2, 3, 3, 3, 1, 0]),
    "weights": WEIGHTS,
}
STATS = {
    "nll": CONFIDENCE + 0.5,
    "entropy": CONFIDENCE + 0.25,
    "sum_squares": CONFIDENCE / 2,
    "weights": WEIGHTS,
}
DOCUMENTS = np.array([0, 0, 1, 1, 2, 2, 3, 3])
TABLES = metrics.document_tables(CONFIDENCE, CORRECT, DOCUMENTS, 4, bins=2)
HISTOGRAM = metrics.ConfidenceHistogram.of(CONFIDENCE, CORRECT, cells=60).exact()
SIGNATURE = metrics.Signature("0123abcd", "0123abcd", "1")


def with_stats(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a TokenStats as one of its fields."""

    def call(weights: Any = None, **fields: Any) -> Any:
        return function(TokenStats(**fields), weights=weights)

    return call


def state_of(kind: Any) -> Callable[..., Any]:
    return lambda **arrays: kind.of(**arrays)


def mean_of_first(sums: Any) -> Any:
    return sums[:, 0] / 8


SUMS = {"sums": TABLES[:, :, 0]}
PUBLIC: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]] = {
    name: (getattr(metrics, name), PAIR, {"bins": 5})
    for name in (
        "reliability_table",
        "expected_calibration_error",
        "maximum_calibration_error",
        "average_calibration_error",
        "debiased_calibration_error",
        "brier_parts",
    )
} | {
    name: (getattr(metrics, name), PAIR, {})
    for name in (
        "signed_gap",
        "brier_score",
        "log_loss",
        "area_under_roc",
        "area_under_risk_coverage",
        "risk_coverage",
        "kolmogorov_smirnov_error",
    )
}
PUBLIC |= {
    "sweep_calibration_error": (metrics.sweep_calibration_error, PAIR, {"max_bins": 5}),
    "smooth_calibration_error": (metrics.smooth_calibration_error, PAIR, {}),
    "smooth_reliability": (metrics.smooth_reliability, PAIR, {"points": 5}),
    "ConfidenceHistogram": (state_of(metrics.ConfidenceHistogram), PAIR, {"cells": 60}),
    "classwise_calibration_error": (metrics.classwise_calibration_error, ROWS, {"bins": 5}),
    "full_calibration_error": (metrics.full_calibration_error, ROWS, {"bins": 5}),
    "top_k_calibration_error": (metrics.top_k_calibration_error, ROWS, {"k": 2, "bins": 5}),
    "VocabularyTable": (
        state_of(metrics.VocabularyTable),
        {**{k: v for k, v in ROWS.items() if k != "probabilities"}, "logits": np.eye(8)[:, :4]},
        {"bins": 5},
    ),
    "nll": (with_stats(metrics.nll), {k: STATS[k] for k in ("nll", "weights")}, {}),
    "entropy_calibration_error": (
        with_stats(metrics.entropy_calibration_error),
        {k: STATS[k] for k in ("nll", "entropy", "weights")},
        {},
    ),
    "multiclass_brier_score": (
        with_stats(metrics.multiclass_brier_score),
        {k: STATS[k] for k in ("nll", "sum_squares", "weights")},
        {},
    ),
    "TokenScores": (
        with_stats(metrics.TokenScores.of),
        {k: STATS[k] for k in ("nll", "entropy", "sum_squares", "weights")},
        {},
    ),
    "document_sums": (
        metrics.document_sums,
        {"values": np.stack([CONFIDENCE, CORRECT], -1), "documents": DOCUMENTS},
        {"count": 4},
    ),
    "document_tables": (
        metrics.document_tables,
        {"confidence": CONFIDENCE, "correct": CORRECT, "documents": DOCUMENTS},
        {"count": 4, "bins": 5},
    ),
    "bootstrap": (
        lambda sums, **o: metrics.bootstrap(sums, mean_of_first, **o),
        SUMS,
        {"resamples": 20, "level": 0.5, "seed": 3},
    ),
    "bootstrap_difference": (
        lambda first, second, **o: metrics.bootstrap_difference(first, second, mean_of_first, **o),
        {"first": SUMS["sums"], "second": SUMS["sums"][::-1].copy()},
        {"resamples": 20, "level": 0.5, "seed": 3},
    ),
    "calibration_error_interval": (
        metrics.calibration_error_interval,
        {"tables": TABLES},
        {"resamples": 20, "level": 0.5, "seed": 3},
    ),
    "calibration_error_difference": (
        metrics.calibration_error_difference,
        {"first": TABLES, "second": TABLES[::-1].copy()},
        {"resamples": 20, "level": 0.5, "seed": 3},
    ),
    "student_interval": (
        lambda sums, **o: metrics.student_interval(sums, mean_of_first, **o),
        SUMS,
        {"level": 0.5},
    ),
    "student_difference": (
        lambda first, second, **o: metrics.student_difference(first, second, mean_of_first, **o),
        {"first": SUMS["sums"], "second": SUMS["sums"][::-1].copy()},
        {"level": 0.5},
    ),
    "mass_calibration": (metrics.mass_calibration, ROWS, {"groups": np.array([0, 1, 1, 0])}),
    "group_mass": (metrics.group_mass, {}, {"groups": np.array([0, 1, 1, 0])}),
    "effective_documents": (
        metrics.effective_documents,
        {"sizes": np.array([2.0, 2, 1, 3])},
        {},
    ),
    "student_half_width": (metrics.student_half_width, {"values": CONFIDENCE}, {"level": 0.5}),
    "histogram_metrics": (
        lambda state, **o: metrics.histogram_metrics(metrics.ConfidenceHistogram(state), **o),
        {"state": HISTOGRAM.table},
        {"bins": 5},
    ),
    "histogram_bounds": (
        lambda state, **o: metrics.histogram_bounds(metrics.ConfidenceHistogram(state), **o),
        {"state": HISTOGRAM.table},
        {"bins": 5},
    ),
    "token_scores": (
        lambda state: metrics.token_scores(metrics.TokenScores(state)),
        {"state": np.array([8.0, 4, 4, 2])},
        {},
    ),
    "bin_edges": (metrics.bin_edges, {}, {"bins": 5}),
    "top_k_confidence": (lambda k: metrics.top_k_confidence(k) and None, {}, {"k": 2}),
    "top_k_correct": (lambda k: metrics.top_k_correct(k) and None, {}, {"k": 2}),
    "parse_signature": (metrics.parse_signature, {}, {"text": str(SIGNATURE)}),
    "differences": (metrics.differences, {}, {"one": SIGNATURE, "other": SIGNATURE}),
    "Signature": (
        metrics.Signature,
        {},
        {"corpus": "0123abcd", "tokenizer": "0123abcd", "version": "1", "bins": 5},
    ),
}
"""Name -> the function of keywords, its arrays, its other arguments."""

RESULTS = {"BrierParts", "Interval", "MassCalibration"}
"""Public names that are only returned."""
WITH_ARRAYS = [name for name, (_, arrays, _) in PUBLIC.items() if arrays]
UNBOUNDED = {"top_k_confidence", "top_k_correct", "Signature"}
"""Public names whose counts have no largest value of their own."""
COUNTS = {
    "bins", "max_bins", "points", "cells", "k", "count", "resamples", "seed",
}  # fmt: skip


def leaves(result: Any) -> list[np.ndarray]:
    if dataclasses.is_dataclass(result) and not isinstance(result, jax.Array):
        result = [getattr(result, field.name) for field in dataclasses.fields(result)]
    return [np.asarray(leaf) for leaf in jax.tree.leaves(result)]


def assert_equal(got: Any, want: Any, tolerance: float = 0.0) -> None:
    pairs = list(zip(leaves(got), leaves(want), strict=True))
    assert pairs or got is want is None
    for mine, theirs in pairs:
        if mine.dtype.kind in "fiub" or mine.dtype == ml_dtypes.bfloat16:
            np.testing.assert_allclose(
                mine.astype(float), theirs.astype(float), rtol=tolerance, atol=tolerance
            )
        else:
            assert mine == theirs


def test_every_public_name_is_here() -> None:
    assert set(PUBLIC) | RESULTS == set(metrics.__all__)


CONTAINERS: dict[str, Callable[[np.ndarray], Any]] = {
    "list": lambda a: a.tolist(),
    "tuple": lambda a: tuple(a.tolist()),
    "objects": lambda a: a.astype(object),
    "decimals": lambda a: np.vectorize(decimal.Decimal, otypes=[object])(a.astype(float)),
    "a masked array with nothing masked": np.ma.masked_array,
    "not contiguous": lambda a: np.repeat(a, 2, axis=0)[::2],
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "jax": lambda a: jnp.asarray(a),
    "float32": lambda a: a.astype(np.float32),
    "labels as floats": lambda a: a.astype(np.float64),
}


@pytest.mark.parametrize("name", WITH_ARRAYS)
def test_a_result_does_not_depend_on_what_held_the_numbers(name: str) -> None:
    """The numbers are exact in every type here; edges in float32 are those of float64 for them."""
    function, arrays, options = PUBLIC[name]
    want = function(**arrays, **options)
    for kind, hold in CONTAINERS.items():
        given = {key: hold(array) for key, array in arrays.items()}
        tolerance = 1e-5 if kind in ("jax", "float32") else 1e-6
        assert_equal(function(**given, **options), want, tolerance)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("holder", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_short_floats_are_numbers(dtype: Any, holder: Any) -> None:
    for name in WITH_ARRAYS:
        function, arrays, options = PUBLIC[name]
        if set(arrays) & {"tables", "first", "sums", "state"}:
            continue  # sums that are not exact in so few digits
        given = {key: holder(array.astype(dtype)) for key, array in arrays.items()}
        assert_equal(function(**given, **options), function(**arrays, **options), 2e-2)


def test_pandas_columns_are_read_and_what_is_missing_is_refused_where_it_counts() -> None:
    import pandas

    want = metrics.expected_calibration_error(CONFIDENCE, CORRECT, bins=5)
    for floats, truth in (("Float64", "boolean"), ("float64", "bool"), ("Float32", "Int64")):
        confidence = pandas.Series(CONFIDENCE, dtype=floats, index=range(8, 0, -1))
        correct = pandas.Series(CORRECT == 1).astype(truth)
        assert metrics.expected_calibration_error(confidence, correct, bins=5) == pytest.approx(
            want
        )
        frame = pandas.DataFrame({"confidence": confidence})
        with pytest.raises(ValueError, match=r"^confidence: shape \(8, 1\)"):
            metrics.brier_score(frame, correct)
    confidence = pandas.Series([0.5, None, 0.75], dtype="Float64")
    correct = pandas.Series([True, None, True], dtype="boolean")
    with pytest.raises(ValueError, match=r"^confidence: must be finite"):
        metrics.brier_score(confidence, correct)
    with pytest.raises(ValueError, match=r"^correct: must be finite"):
        metrics.brier_score([0.5, 0.5, 0.5], correct)
    got = metrics.brier_score(confidence, correct, weights=[1, 0, 1])
    assert got == metrics.brier_score([0.5, 0.75], [1, 1])
    objects = [0.5, pandas.NA, 0.75]
    assert metrics.brier_score(objects, correct, weights=[1, 0, 1]) == got
    for column in (pandas.Series(["a", "b"]), pandas.to_datetime(["2020-01-01", "2020-01-02"])):
        with pytest.raises(ValueError, match=r"^confidence:"):
            metrics.brier_score(column, [0, 1])


def test_arrow_columns_are_read() -> None:
    import pyarrow

    confidence, correct = pyarrow.array(CONFIDENCE), pyarrow.array(CORRECT == 1)
    got = metrics.brier_score(confidence, correct)
    assert got == metrics.brier_score(CONFIDENCE, CORRECT)
    chunked = pyarrow.chunked_array([CONFIDENCE[:3], CONFIDENCE[3:]])
    assert metrics.brier_score(chunked, correct) == got
    with pytest.raises(ValueError, match=r"^correct:"):
        metrics.brier_score([0.5, 0.5], pyarrow.array([True, None]))


def test_polars_columns_are_read() -> None:
    polars = pytest.importorskip("polars")
    confidence, correct = polars.Series(CONFIDENCE), polars.Series(CORRECT == 1)
    got = metrics.brier_score(confidence, correct)
    assert got == metrics.brier_score(CONFIDENCE, CORRECT)
    with pytest.raises(ValueError, match=r"^correct:"):
        metrics.brier_score([0.5, 0.5], polars.Series([True, None]))


def test_tensors_of_torch_are_read() -> None:
    torch = pytest.importorskip("torch")
    for name in WITH_ARRAYS:
        function, arrays, options = PUBLIC[name]
        given = {key: torch.from_numpy(array) for key, array in arrays.items()}
        assert_equal(function(**given, **options), function(**arrays, **options), 1e-6)
    tensor = torch.tensor([0.5, 0.25], dtype=torch.bfloat16)
    assert metrics.brier_score(tensor, torch.tensor([True, False])) == 0.15625
    with pytest.raises(ValueError, match=r"^confidence: cannot be read.*requires grad"):
        metrics.brier_score(torch.tensor([0.5], requires_grad=True), [1])
    bins = torch.tensor(5)
    assert metrics.expected_calibration_error(tensor, [1, 0], bins=bins) == 0.375


class WithDlpack:
    """As torch's bfloat16: no `__array__` that works, DLPack only."""

    dtype = "torch.bfloat16"

    def __init__(self, array: Any):
        self.array = array

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Got unsupported ScalarType BFloat16")

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def test_dlpack_is_read_where_arrays_of_numpy_are_not_given() -> None:
    for dtype in (jnp.float32, jnp.bfloat16):
        held = WithDlpack(jnp.array([0.5, 0.25], dtype))
        assert metrics.brier_score(held, [1, 0]) == 0.15625


class Broken:
    """Whatever is asked of it fails."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")


WRONG: dict[str, Callable[[np.ndarray], Any]] = {
    "NaN": lambda a: np.where(np.arange(a.size).reshape(a.shape) == 1, np.nan, a),
    "infinity": lambda a: np.where(np.arange(a.size).reshape(a.shape) == 1, np.inf, a),
    "text": lambda a: a.astype(str),
    "text in objects": lambda a: a.astype(str).astype(object),
    "bytes": lambda a: a.astype(bytes),
    "dates": lambda a: a.astype("datetime64[D]"),
    "durations": lambda a: a.astype("timedelta64[s]"),
    "complex": lambda a: a.astype(complex),
    "records": lambda a: np.zeros(a.shape, [("a", float)]),
    "a mapping": lambda a: {"a": a},
    "a set": lambda a: set(a.ravel().tolist()),
    "a generator": lambda a: (x for x in a),
    "a word": lambda a: "word",
    "a number": lambda a: 0.5,
    "unequal rows": lambda a: [[0.5], [0.5, 0.25]],
    "a huge integer": lambda a: [10**400, *[1] * (len(a) - 1)],
    "masked": lambda a: np.ma.masked_equal(a, a.flat[0]),
    "missing": lambda a: np.where(np.arange(a.size).reshape(a.shape) == 1, None, a),
    "one row fewer": lambda a: a[:-1],
    "one axis more": lambda a: a[..., None],
    "empty": lambda a: a[:0],
    "broken": lambda a: Broken(),
    "of objects": lambda a: np.full(a.shape, object(), object),
}
ALLOWED = {
    # one row fewer, or none at all, is a size of its own where nothing else has to fit it
    ("one row fewer", "sums"), ("one row fewer", "tables"), ("one row fewer", "values"),
    ("one axis more", "sums"), ("empty", "values"), ("one row fewer", "first"),
    ("one axis more", "first"), ("one axis more", "second"), ("one row fewer", "state"),
    ("one axis more", "state"), ("empty", "state"), ("one row fewer", "nll"),
    ("one axis more", "nll"), ("one row fewer", "logits"), ("one row fewer", "sizes"),
}  # fmt: skip


@pytest.mark.parametrize("name", WITH_ARRAYS)
def test_what_is_not_numbers_is_refused_by_its_name(name: str) -> None:
    """Shapes are compared in pairs: there another argument may be the one that is named."""
    function, arrays, options = PUBLIC[name]
    for (key, array), wrong in itertools.product(arrays.items(), WRONG):
        given = {**arrays, key: WRONG[wrong](array)}
        if wrong in ("one row fewer", "one axis more", "empty", "a number"):
            if (wrong, key) in ALLOWED:
                continue
            names = "|".join(arrays)
            with pytest.raises(ValueError, match=f"^({names}): "):
                function(**given, **options)
        elif (name, key, wrong) != ("multiclass_brier_score", "nll", "infinity"):  # p = 0
            with pytest.raises(ValueError, match=f"^{key}: "):
                function(**given, **options)


@pytest.mark.parametrize("name", PUBLIC)
def test_whole_numbers_may_be_floats_and_nothing_else_is_a_count(name: str) -> None:
    function, arrays, options = PUBLIC[name]
    for key in COUNTS & set(options):
        for same in (float(options[key]), np.int8(options[key]), np.float32(options[key])):
            got = function(**arrays, **{**options, key: same})
            assert_equal(got, function(**arrays, **options))
        for bad in (2.5, "2", True, np.nan, np.inf, -1, 1j, [2], object(), 10**30, -(10**30)):
            if bad == 10**30 and (key in ("seed", "resamples", "count") or name in UNBOUNDED):
                continue
            with pytest.raises(ValueError, match=f"^{key}: "):
                function(**arrays, **{**options, key: bad})


@pytest.mark.parametrize("name", [n for n, (_, _, options) in PUBLIC.items() if "level" in options])
@pytest.mark.parametrize("level", [0, 1, -1, np.nan, "0.5", [0.5], 95])
def test_a_level_lies_between_0_and_1(name: str, level: Any) -> None:
    function, arrays, options = PUBLIC[name]
    with pytest.raises(ValueError, match=r"^level: "):
        function(**arrays, **{**options, "level": level})


def test_other_arguments_are_refused_by_name() -> None:
    for sigma in (0, -1, 2, np.nan, "0.1", [0.1]):
        for function in (metrics.smooth_calibration_error, metrics.smooth_reliability):
            with pytest.raises(ValueError, match=r"^sigma: "):
                function(CONFIDENCE, CORRECT, sigma=sigma)
    for scheme in (None, 3, ["width"], "Width"):
        with pytest.raises(ValueError, match=r"^scheme: "):
            metrics.expected_calibration_error(CONFIDENCE, CORRECT, scheme=scheme)
    for other in (None, 5, {}, CONFIDENCE):
        for function in (metrics.nll, metrics.multiclass_brier_score, metrics.TokenScores.of):
            with pytest.raises(ValueError, match=r"^stats: "):
                function(other)
        for function in (metrics.histogram_metrics, metrics.histogram_bounds, metrics.token_scores):
            with pytest.raises(ValueError, match=r"^state: "):
                function(other)
        with pytest.raises(ValueError, match=r"^text: "):
            metrics.parse_signature(other)
        with pytest.raises(ValueError, match=r"^other: "):
            metrics.differences(SIGNATURE, other)
        with pytest.raises(ValueError, match=r"^statistic: "):
            metrics.bootstrap(TABLES, other)
        with pytest.raises(ValueError, match=r"^corpus: "):
            metrics.Signature(other, "0123abcd", "1")
    with pytest.raises(ValueError, match=r"^precision: "):
        metrics.bin_edges(5, np.int32)


def test_inside_jit_arrays_pass_and_what_is_static_is_named() -> None:
    for name in ("expected_calibration_error", "classwise_calibration_error", "TokenScores"):
        function, arrays, options = PUBLIC[name]
        inside = jax.jit(lambda a, f=function, o=options: f(**a, **o))
        given = {key: jnp.asarray(array) for key, array in arrays.items()}
        assert_equal(inside(given), function(**arrays, **options), 1e-5)
        with pytest.raises(ValueError, match=r"^weights: "):
            inside({**given, "weights": given["weights"][:-1]})
    with pytest.raises(ValueError, match=r"^bins: is traced"):
        jax.jit(lambda c, b: metrics.brier_parts(c, CORRECT, bins=b))(CONFIDENCE, 5)
    with pytest.raises(ValueError, match=r"^labels: float32 is not allowed"):
        jax.jit(metrics.classwise_calibration_error)(
            ROWS["probabilities"], ROWS["labels"].astype(np.float32)
        )

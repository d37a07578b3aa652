"""Strata cut the events without loss; results do not depend on batches, blocks or cuts."""

import dataclasses
import math

import numpy as np
import pytest

from calibtrain.config import validate
from calibtrain.evaluation.event_figures import compute_results
from calibtrain.evaluation.event_sums import COLUMNS, MAX_BLOCKS, EventSums, ScoredEvents
from calibtrain.evaluation.figure_intervals import document_notes
from calibtrain.evaluation.signatures import signatures
from calibtrain.evaluation.strata import (
    ENTROPY,
    FREQUENCY,
    POSITION,
    document_groups,
    entropy_band,
    position_band,
)
from calibtrain.metrics import expected_calibration_error, smooth_calibration_error
from calibtrain.metrics.signature import Signature, parse_signature

BINS = 15


def events(count: int, documents: int, seed: int = 0) -> ScoredEvents:
    """Calibrated events of documents."""
    rng = np.random.default_rng(seed)
    document = np.sort(rng.integers(0, documents, count))
    document[:documents] = np.arange(documents)
    confidence = rng.beta(1, 3, count).astype(np.float32).astype(np.float64)
    correct = (rng.random(count) < confidence).astype(float)
    nll, entropy = rng.exponential(size=count), rng.exponential(size=count) * 2
    values = np.column_stack([nll, entropy, confidence, correct, rng.random(count)])
    decile = rng.integers(0, 10, count)
    return ScoredEvents(document, values, before=rng.integers(0, 9000, count), decile=decile)


def sums_of(
    parts: list[ScoredEvents], document_bytes: list[int], chosen: int | None = None
) -> EventSums:
    documents = np.arange(chosen or len(document_bytes))
    strata = [FREQUENCY, POSITION, ENTROPY]
    sums = EventSums(np.array(document_bytes), documents, strata, BINS)
    for part in parts:
        sums.add(part)
    return sums


def test_figures_are_those_of_the_events_themselves() -> None:
    scored = events(5000, 40)
    found = compute_results(sums_of([scored], [300] * 40))
    nll, entropy, confidence, correct, brier = scored.values.T
    assert found["tokens"] == 5000
    assert found["bytes"] == 12_000
    assert found["nll"] == pytest.approx(nll.mean())
    assert found["bits_per_byte"] == pytest.approx(nll.sum() / math.log(2) / 12_000)
    assert found["entropy_rate"] == pytest.approx(entropy.mean())
    assert found["entropy_calibration_error"] == pytest.approx(abs(entropy.mean() - nll.mean()))
    assert found["multiclass_brier"] == pytest.approx(brier.mean())
    assert found["brier"] == pytest.approx(((confidence - correct) ** 2).mean())
    ece = float(expected_calibration_error(confidence.astype(np.float32), correct, bins=BINS))
    assert found["ece"] == pytest.approx(ece, abs=1e-9)
    smooth = float(smooth_calibration_error(confidence.astype(np.float32), correct))
    assert found["smooth_calibration_error"] == pytest.approx(smooth, abs=1e-9)


def test_the_groups_of_every_stratum_add_up_to_the_whole() -> None:
    found = compute_results(sums_of([events(4000, 30)], [100] * 30))
    for stratum in (FREQUENCY, POSITION, ENTROPY):
        rows = found[stratum.name]
        assert [row["label"] for row in rows] == list(stratum.labels)
        assert sum(row["tokens"] for row in rows) == found["tokens"]
        for figure in ("nll", "accuracy", "mean_confidence", "signed_gap", "entropy_rate"):
            total = sum(row["tokens"] * (row[figure] or 0.0) for row in rows)
            assert total / found["tokens"] == pytest.approx(found[figure])
        # what a group over-states, another may under-state: pooled, they cancel
        assert sum(row["tokens"] * (row["ece"] or 0.0) for row in rows) / found["tokens"] >= (
            found["ece"] - 1e-12
        )


def test_batches_and_their_order_change_nothing() -> None:
    scored = events(3000, 20)
    whole = compute_results(sums_of([scored], [100] * 20))
    order = np.random.default_rng(1).permutation(3000)
    parts = [
        ScoredEvents(*(None if c is None else c[some] for c in dataclasses.astuple(scored)))
        for some in np.array_split(order, 7)
    ]
    again = compute_results(sums_of(parts, [100] * 20))
    for name, value in whole.items():
        if isinstance(value, float):
            assert again[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize("documents", [20, MAX_BLOCKS + 20])
def test_bins_of_each_document_are_kept_up_to_a_limit(
    documents: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored, text = events(3000, documents + 1), np.full(documents + 1, 100)
    first = scored.document == 0  # is not chosen
    kept = ScoredEvents(*(None if c is None else c[~first] for c in dataclasses.astuple(scored)))
    chosen = np.random.default_rng(2).permutation(np.arange(1, documents + 1))
    sums = EventSums(text, chosen, [], BINS)
    sums.add(kept)
    assert sums.document_tables is not None
    assert sums.document_tables.shape == (documents, BINS, 3)
    np.testing.assert_allclose(sums.document_tables.sum(0), sums.tables.sum(0), rtol=1e-12)
    for place in (0, 7, documents - 1):
        member = kept.document == chosen[place]
        confidence = kept.column("confidence")[member]
        bins = np.ceil(confidence * BINS).astype(int) - 1
        wanted = np.bincount(bins, confidence, BINS)
        np.testing.assert_allclose(sums.document_tables[place, :, 1], wanted)
    monkeypatch.setattr("calibtrain.evaluation.event_sums.MOST_CELLS", documents * BINS - 1)
    limited = EventSums(text, chosen, [], BINS).document_tables
    assert (limited is None) == (documents > MAX_BLOCKS)


def test_intervals_hold_the_estimate_and_grow_narrow_with_more_documents() -> None:
    widths = []
    for documents in (20, MAX_BLOCKS + 20):
        found = compute_results(sums_of([events(50 * documents, documents)], [100] * documents))
        for name in ("nll", "accuracy", "signed_gap", "bits_per_byte"):
            interval = found["intervals"][name]
            assert interval["lower"] <= found[name] <= interval["upper"]
        widths.append(found["intervals"]["nll"]["upper"] - found["intervals"]["nll"]["lower"])
        # events are calibrated: no error may be told from none
        for name in ("ece", "ece_mass", "smooth_calibration_error", "kolmogorov_smirnov_error"):
            assert found["intervals"][name]["lower"] == 0.0, name
    assert widths[1] < widths[0] / 2.5  # a quarter, but for noise


def test_a_single_document_has_figures_and_no_intervals() -> None:
    found = compute_results(sums_of([events(500, 1)], [900, 80, 70], chosen=1))
    assert found["intervals"] == {}
    assert all(row["intervals"] is None for row in found[POSITION.name])


@pytest.mark.parametrize("documents", [4, 5])
def test_fewer_than_five_documents_have_no_intervals(documents: int) -> None:
    found = compute_results(sums_of([events(400, documents)], [100] * documents))
    rows = found[ENTROPY.name]
    assert bool(found["intervals"]) == (documents == 5)
    assert any(row["intervals"] for row in rows) == (documents == 5)


def test_an_interval_ends_where_its_figure_does() -> None:
    """Five documents, all but one event of which are right."""
    scored = events(100, 5)
    scored.values[:, COLUMNS.index("correct")] = 1.0
    scored.values[0, COLUMNS.index("correct")] = 0.0
    found = compute_results(sums_of([scored], [100] * 5))
    assert found["accuracy"] == pytest.approx(0.99)
    assert found["intervals"]["accuracy"]["lower"] < 0.99
    assert found["intervals"]["accuracy"]["upper"] == 1.0
    assert found["intervals"]["area_under_risk_coverage"]["lower"] == 0.0


def test_few_documents_are_noted() -> None:
    assert document_notes(1, 1.0)[0].startswith("one document: figures have no intervals")
    assert document_notes(4, 4.0)[0].startswith("4 documents: figures have no intervals")
    assert document_notes(5, 5.0)[0].startswith("5 documents: intervals over so few")
    assert document_notes(19, None)[0].startswith("19 documents")
    assert document_notes(400, 7.31)[0].startswith("400 documents of very unequal length count as ")
    assert "count as 7.3:" in document_notes(400, 7.31)[0]
    assert document_notes(20, 20.0) == document_notes(20, 19.97) == document_notes(20, None) == []


def test_documents_count_by_their_events() -> None:
    sums = sums_of([events(400, 8)], [100] * 9, chosen=8)
    held = sums.documents[:, 0]
    assert sums.effective_documents == pytest.approx(held.sum() ** 2 / (held**2).sum())


def test_bands_are_open_where_they_say() -> None:
    assert position_band(np.array([0, 63, 64, 255, 256, 4095, 4096])).tolist() == [
        *(0, 0, 1, 1, 2, 3, 4)
    ]
    assert entropy_band(np.array([0.0, 0.49, 0.5, 5.9, 6.0]) * np.log(2)).tolist() == [
        *(0, 0, 1, 5, 6)
    ]


def test_documents_are_grouped_where_they_have_groups() -> None:
    assert document_groups(["", "", ""]) is None
    assert document_groups([]) is None
    found = document_groups(["b", "a", "", "b"])
    assert found is not None
    assert found.labels == ("(none)", "a", "b")
    scored = ScoredEvents(np.array([0, 1, 2, 3, 1]), np.zeros((5, 5)))
    assert found.group_of(scored).tolist() == [2, 1, 0, 2, 1]


def test_every_figure_has_a_signature_that_says_how_it_was_made() -> None:
    found = compute_results(sums_of([events(900, 10)], [100] * 10))
    about = Signature("ab" * 8, "cd" * 8, "0.1.0", bins=BINS, temperature=1.25)
    signed = signatures(found, about)
    figures = {name for name, value in found.items() if isinstance(value, int | float)}
    assert set(signed) == figures - {"tokens", "bytes", "sweep_bins"}
    parsed = {name: parse_signature(text) for name, text in signed.items()}
    assert all(one.temperature == 1.25 and one.corpus == "abababab" for one in parsed.values())
    assert (parsed["ece"].bins, parsed["ece"].scheme) == (BINS, "width")
    assert (parsed["ece_mass"].scheme, parsed["ece_mass"].edges) == ("mass", "exact-mass")
    assert (parsed["nll"].bins, parsed["nll"].scheme) == (None, "none")
    assert parsed["sweep_calibration_error"].bins == found["sweep_bins"]


def test_bins_must_divide_the_cells() -> None:
    from calibtrain.config import EvaluationConfig
    from calibtrain.errors import UserError

    with pytest.raises(UserError, match=r"bins.*7 does not divide 480"):
        validate(EvaluationConfig, {"bins": 7})


def test_an_empty_document_among_others_takes_nothing_away() -> None:
    scored = events(300, 6)
    found = compute_results(sums_of([scored], [200, 0, 150, 90, 80, 80]))
    assert found["bits_per_byte"] == pytest.approx(scored.column("nll").sum() / math.log(2) / 600)
    assert found["intervals"]
    assert all(
        interval["upper"] <= 1
        for name, interval in found["intervals"].items()
        if name.endswith("_error") and not name.startswith("entropy")
    )


def test_more_groups_than_a_table_can_show_are_refused() -> None:
    from calibtrain.errors import UserError

    with pytest.raises(UserError, match=r"corpus\.group: makes 300 groups .* at most 200"):
        document_groups([str(n) for n in range(300)])

"""What a report says of its evaluations: intervals, the suite, signatures, strata, events."""

import itertools
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from folders import BOUNDED, GROUPS, METRICS, PARTS, TEST_BYTES, write_run, write_study
from pages import Page

from calibtrain.errors import UserError
from calibtrain.figures.signatures import differing
from calibtrain.metrics.quantities import QUANTITIES, SUITE
from calibtrain.metrics.signature import differences, parse_signature
from calibtrain.metrics.student import student_half_width
from calibtrain.report import write_report

MAIN = ("bits_per_byte", "ece", "signed_gap", "accuracy", "mean_confidence", "nll")


def evaluation_file(run: Path, split: str = "test") -> Path:
    (path,) = (run / "evaluations").glob(f"*-{split}-*[0-9].json")
    return path


def change(path: Path, **values: Any) -> dict[str, Any]:
    """Rewrite some keys of an evaluation's file."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps(content))
    return content


def add_event(run: Path, event: str = "byte", **values: Any) -> dict[str, Any]:
    """Write an evaluation of another event beside the token's."""
    path = evaluation_file(run)
    content = json.loads(path.read_text())
    signatures = {
        k: v.replace("event:token", f"event:{event}") for k, v in content["signatures"].items()
    }
    content |= {"event": event, "signatures": signatures, **values}
    path.with_name(f"{path.stem}-{event}.json").write_text(json.dumps(content))
    return content


def page_of(folder: Path) -> Page:
    return Page(write_report(folder))


# --- intervals -----------------------------------------------------------------------------------


def test_every_figure_of_a_run_has_its_interval(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    content = json.loads(evaluation_file(tmp_path / "run").read_text())
    page = page_of(tmp_path / "run")
    cells = {cell.get("data-value"): cell for cell in page.cells("results")}
    for key in (*MAIN, "entropy_rate", "entropy_bits_per_byte"):
        cell = cells[json.dumps(content[key])]
        ends = content["intervals"][key]
        assert (cell["data-lower"], cell["data-upper"]) == (
            json.dumps(ends["lower"]),
            json.dumps(ends["upper"]),
        )
        assert "95 %" in (cell["title"] or "")
    low, high = (f"{content['intervals']['ece'][end]:.4f}" for end in ("lower", "upper"))
    assert f"[{low}, {high}]" in page.findings()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"intervals": {}, "documents": 1}, "one document"),
        (
            {"intervals": {"ece": {"lower": 0.0, "upper": 1.0, "method": "bca"}}},
            "midst of training",
        ),
    ],
)
def test_a_figure_without_an_interval_says_why(
    tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    write_run(tmp_path / "run", evaluations=("test",))
    content = change(evaluation_file(tmp_path / "run"), **values)
    cells = page_of(tmp_path / "run").cells("results")
    (nll,) = [cell for cell in cells if cell.get("data-value") == json.dumps(content["nll"])]
    assert "data-lower" not in nll
    assert said in (nll["title"] or "")


def test_files_of_an_earlier_version_are_still_read(tmp_path: Path) -> None:
    finals = write_run(tmp_path / "run", old=True)
    page = page_of(tmp_path / "run")
    assert page.figures() == ["reliability", "training", "memory"]
    assert "known only afterwards" in page.part("frequency")
    assert finals["kjv-test"]["ece"] in page.values
    assert "of a version that made none" in page.part("results")
    assert "wrote no signatures" in page.part("signatures")
    write_study(tmp_path / "s", sizes=(512, 1024), seeds=(0, 1), old=True)
    assert "None of them has a signature" in page_of(tmp_path / "s").part("tokens")


def test_means_have_intervals_over_seeds_and_arms_over_documents(tmp_path: Path) -> None:
    content = write_study(tmp_path / "s", sizes=(512, 1024), seeds=(0, 1, 2))
    page = page_of(tmp_path / "s")
    cells = page.cells("tokens")
    for arm in content["arms"]:
        found = json.loads(evaluation_file(tmp_path / "s" / arm["folder"]).read_text())
        ends = {
            (c.get("data-lower"), c.get("data-upper"))
            for c in cells
            if c.get("data-value") == json.dumps(found["ece"])
        }
        ece = found["intervals"]["ece"]
        assert (json.dumps(ece["lower"]), json.dumps(ece["upper"])) in ends
    write_study(tmp_path / "one", sizes=(512, 1024), seeds=(0,))
    alone = page_of(tmp_path / "one").cells("results")
    assert any("no interval: one seed" in (cell.get("title") or "") for cell in alone)


# --- the suite -----------------------------------------------------------------------------------


def test_the_suite_holds_every_metric_with_interval_and_bound(tmp_path: Path) -> None:
    write_run(tmp_path / "run", evaluations=("test",))
    full = {"full_calibration_error": 0.0123, "classwise_calibration_error": 0.4567}
    content = change(evaluation_file(tmp_path / "run"), **full)
    page = page_of(tmp_path / "run")
    assert set(SUITE) == {"ece", "nll", *METRICS, *PARTS, *full}
    cells = page.cells("suite")
    for metric in map(QUANTITIES.__getitem__, SUITE):
        is_part = metric.key in PARTS  # beneath the Brier score, in short
        title = metric.name.replace("Brier ", "· ") if is_part else metric.name
        assert title in unescape(page.part("suite"))
        (cell,) = [c for c in cells if c.get("data-value") == json.dumps(content[metric.key])]
        assert ("data-lower" in cell) == (metric.key not in PARTS and metric.key not in full)
    bounds = {c.get("data-value") for c in cells}
    assert {json.dumps(content["bounds"][key]) for key in BOUNDED} <= bounds
    assert sum("exact" in (c.get("title") or "") for c in cells) == len(SUITE) - len(BOUNDED)


def test_what_is_not_defined_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "run", evaluations=("test",))
    change(evaluation_file(tmp_path / "run"), area_under_roc=None)
    cells = page_of(tmp_path / "run").cells("suite")
    assert any("all predictions are right" in (cell.get("title") or "") for cell in cells)


def test_a_study_has_the_suite_of_each_combination(tmp_path: Path) -> None:
    content = write_study(tmp_path / "s", sizes=(512, 1024), seeds=(0, 1))
    path = tmp_path / "s" / "ablation.json"
    for row in content["summary"]:  # an ablation averages every figure
        row["mean"] |= dict.fromkeys(METRICS, 0.1)
        row["half_width"] |= dict.fromkeys(METRICS, 0.01)
    path.write_text(json.dumps(content))
    page = page_of(tmp_path / "s")
    heads = re.findall(r'<th scope="col" class="num">(.*?)<', page.part("suite"))
    assert heads[:2] == ["V = 512", "V = 1,024"]
    cells = page.cells("suite")
    assert sum(c.get("data-half-width") == "0.01" for c in cells) == 2 * len(METRICS)


# --- signatures ----------------------------------------------------------------------------------


def test_every_signature_is_printed(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    content = json.loads(evaluation_file(tmp_path / "run").read_text())
    shown = re.sub(r"<wbr>", "", page_of(tmp_path / "run").part("signatures"))
    for signature in content["signatures"].values():
        assert signature in shown


def test_signatures_differ_where_the_metrics_say_so() -> None:
    one = (
        "event:token|conf:max|bins:15|scheme:width|edges:left-open|T:1|corpus:0f0f0f0f|tok:{}|v:{}"
    )
    a, b = one.format("11111111", "0.1"), one.format("22222222", "0.2")
    assert differing([a, b]) == differences(parse_signature(a), parse_signature(b))
    assert differing([a, a]) == differences(parse_signature(a), parse_signature(a)) == {}


def test_columns_of_one_signature_need_no_line(tmp_path: Path) -> None:
    write_study(
        tmp_path / "s", sizes=(512,), seeds=(0, 1), other=("model.kind", ("lstm", "transformer"))
    )
    assert "different signatures" not in page_of(tmp_path / "s").text


def test_columns_that_mix_signatures_say_in_what(tmp_path: Path) -> None:
    write_study(tmp_path / "s", sizes=(512, 1024), seeds=(0, 1))
    page = page_of(tmp_path / "s")
    assert page.text.count("different signatures: tok (2 tokenizers)") == 1
    assert "compare bits per byte or byte events" in page.part("tokens")
    path = evaluation_file(tmp_path / "s" / "vocab_size=512,seed=0")
    found = json.loads(path.read_text())["signatures"]
    other = {
        k: v.replace("v:0.1.0", "v:0.2.0").replace("corpus:9f2c41d0", "corpus:00000000")
        for k, v in found.items()
    }
    change(path, signatures=other)
    said = page_of(tmp_path / "s").part("tokens")
    assert "v (2 versions of calibtrain" in said
    assert "corpus (2 texts)" in said
    assert "A difference may come from these" in said


def test_a_signature_is_escaped(tmp_path: Path) -> None:
    write_run(tmp_path / "run", evaluations=("test",))
    change(evaluation_file(tmp_path / "run"), signatures={"ece": "event:<b>|T:<i>"})
    assert not any(tag in ("b", "i") for tag, _ in page_of(tmp_path / "run").tags)


# --- strata --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("anchor", "table"),
    [
        ("frequency", "frequency_deciles"),
        ("position", "positions"),
        ("entropy", "entropy_bands"),
        ("groups", "groups"),
    ],
)
def test_strata_are_drawn_and_listed_with_their_intervals(
    tmp_path: Path, anchor: str, table: str
) -> None:
    write_run(tmp_path / "run")
    rows = json.loads(evaluation_file(tmp_path / "run").read_text())[table]
    page = page_of(tmp_path / "run")
    places, values = ("y", "x") if table == "groups" else ("x", "y")
    keys = ("signed_gap",) if table == "frequency_deciles" else ("ece", "signed_gap")
    for plot, key in zip(page.plots_of(anchor), keys, strict=True):
        bars, points, *perfect = plot["data"]
        wanted = [row["reference_gap"] for row in rows] if table == "frequency_deciles" else None
        assert [trace["y"] for trace in perfect] == ([wanted] if wanted else [])
        assert points[values] == [row[key] for row in rows]
        assert points[places] == pytest.approx(range(1, len(rows) + 1))
        ends = [row["intervals"][key] for row in rows if row["intervals"]]
        assert bars[values][::3] == [end["lower"] for end in ends]
        assert bars[values][1::3] == [end["upper"] for end in ends]
    cells = page.cells(anchor)
    for row in rows:
        if row["tokens"]:
            exact = {c.get("data-value"): c.get("data-upper") for c in cells}
            upper = row["intervals"][keys[0]]["upper"]
            assert exact[json.dumps(row[keys[0]])] == json.dumps(upper)


def test_no_group_is_hidden_and_the_worst_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    path = evaluation_file(tmp_path / "run")
    content = json.loads(path.read_text())
    many = [content["groups"][0] | {"label": f"Group {i:03}"} for i in range(150)]
    worst = {"ece": 0.4, "intervals": {"ece": {"lower": 0.3, "upper": 0.5, "method": "bca"}}}
    unsure = {"ece": 0.9, "intervals": {"ece": {"lower": 0.0, "upper": 1.0, "method": "bca"}}}
    many[70] |= worst
    many[71] |= unsure
    change(path, groups=many)
    part = page_of(tmp_path / "run").part("groups")
    assert all(f'<th scope="row">Group {i:03}</th>' in part for i in range(150))
    assert "is 0.4000 [0.3000, 0.5000], of group Group 070." in part


def test_a_group_is_drawn_by_its_own_name(tmp_path: Path) -> None:
    """Plotly takes a tag for HTML, and would draw the label without it."""
    write_run(tmp_path / "run")
    path = evaluation_file(tmp_path / "run")
    groups = json.loads(path.read_text())["groups"]
    groups[0]["label"] = "<i>Acts & more"
    change(path, groups=groups)
    plot = page_of(tmp_path / "run").plots_of("groups")[0]
    assert plot["layout"]["yaxis"]["ticktext"][0] == "&lt;i&gt;Acts &amp; more"


def test_the_worst_group_lies_above_in_every_seed(tmp_path: Path) -> None:
    """Over documents: noise raises the ECE of few events in all seeds alike."""
    write_study(tmp_path / "s", sizes=(512,), seeds=(0, 1, 2))

    def part(lower: list[float]) -> str:
        for seed, low in enumerate(lower):
            path = evaluation_file(tmp_path / "s" / f"seed={seed}")
            rows = json.loads(path.read_text())["groups"]
            for row in rows:
                row["ece"] = 0.001
                row["intervals"] = {"ece": {"lower": 0.0, "upper": 0.002, "method": "x"}}
            ends = {"lower": low, "upper": 0.6 + low, "method": "x"}
            rows[0] |= {"ece": 0.41, "intervals": {"ece": ends}}
            rows[1] |= {"ece": 0.9, "intervals": None}
            change(path, groups=rows)
        return page_of(tmp_path / "s").part("groups")

    said = part([0.3, 0.2, 0.35])
    assert f"in every seed is 0.4100 [0.2000, 0.9500], of group {GROUPS[0]}." in said
    assert "interval of no group lies above" in part([0.3, 0.0, 0.35])


def test_a_study_lays_its_combinations_over_each_other(tmp_path: Path) -> None:
    write_study(tmp_path / "s", sizes=(512, 1024), seeds=(0, 1, 2))
    page = page_of(tmp_path / "s")
    files = [
        json.loads(evaluation_file(tmp_path / "s" / f"vocab_size=512,seed={seed}").read_text())
        for seed in (0, 1, 2)
    ]
    eces = [found["groups"][0]["ece"] for found in files]
    means = [t for t in page.plots_of("groups")[0]["data"] if "hovertext" in t]
    assert means[0]["x"][0] == pytest.approx(sum(eces) / 3)
    (cell,) = [
        c
        for c in page.cells("groups")
        if "data-half-width" in c
        and float(c["data-value"] or 0) == pytest.approx(sum(eces) / 3, rel=1e-12)
    ]
    half = student_half_width(eces)
    assert float(cell["data-half-width"] or 0) == pytest.approx(half)
    assert all(label in page.part("groups") for label in GROUPS)


def test_a_study_of_one_seed_has_its_intervals_over_documents(tmp_path: Path) -> None:
    write_study(tmp_path / "s", sizes=(512, 1024), seeds=(0,))
    page = page_of(tmp_path / "s")
    for size in (512, 1024):
        path = evaluation_file(tmp_path / "s" / f"vocab_size={size},seed=0")
        for row in json.loads(path.read_text())["groups"]:
            for key in ("ece", "signed_gap") if row["tokens"] else ():
                assert row["intervals"][key]["lower"] in page.values
                assert f'data-upper="{row["intervals"][key]["upper"]}"' in page.part("groups")


def test_the_curves_are_the_files(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    content = json.loads(evaluation_file(tmp_path / "run").read_text())
    smooth, risk = page_of(tmp_path / "run").plots_of("curves")
    assert smooth["data"][1]["y"] == [p["accuracy"] for p in content["smooth_reliability"]]
    assert risk["data"][0]["y"] == [p["risk"] for p in content["risk_coverage"]]
    density = smooth["data"][2]["y"]
    area = sum(a + b for a, b in itertools.pairwise(density)) / 2 / 20
    assert area == pytest.approx(1)


# --- events and temperatures ---------------------------------------------------------------------


def test_other_events_stand_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    found = add_event(tmp_path / "run", ece=0.000123, nll=1.2345)
    add_event(tmp_path / "run", "word", ece=0.000456)
    page = page_of(tmp_path / "run")
    assert 0.000123 in page.values
    assert "0.000123" not in page.part("results")
    events = page.part("events")
    assert json.dumps(found["nll"]) in events
    assert "Evaluations by byte" in events
    assert "Evaluations by word" in events
    assert "nats/byte" in events
    assert "0.0001" not in page.findings()


def test_the_verdict_is_in_byte_events_where_vocabularies_differ(tmp_path: Path) -> None:
    write_study(tmp_path / "s", sizes=(512, 1024, 2048), seeds=(0, 1, 2))

    def report(eces: dict[int, list[float]]) -> Page:
        for size, values in eces.items():
            for seed, ece in enumerate(values):
                arm = tmp_path / "s" / f"vocab_size={size},seed={seed}"
                add_event(arm, ece=ece)
        return page_of(tmp_path / "s")

    base = {512: [0.010, 0.014, 0.012], 1024: [0.011, 0.013, 0.013]}
    page = report({**base, 2048: [0.012, 0.013, 0.016]})
    first = page.text[page.text.index("No effect") :].split(".  ")[0].replace("\u00a0", " ")
    # Student's t at 1 - 0.05 / 3, of the differences by seed: 0.002, -0.001, 0.004.
    half = student_half_width([0.002, -0.001, 0.004], 1 - 0.05 / 3)
    assert half is not None
    ends = f"[{0.005 / 3 - half:+.4f}, {0.005 / 3 + half:+.4f}]".replace("-", "−")
    assert first.startswith(
        "No effect of vocabulary size on byte ECE was detected with 3 seeds: the largest "
        f"difference is +0.0017 {ends} (2,048 against 512)."
    )
    # On log2 V the seeds' slopes are half of the same differences.
    trend = student_half_width([0.001, -0.0005, 0.002])
    assert trend is not None
    ends = f"[{0.0025 / 3 - trend:+.4f}, {0.0025 / 3 + trend:+.4f}]".replace("-", "−")
    flat = page.findings().replace("\u00a0", " ")
    assert (
        f"each doubling of the vocabulary, over 3 seeds, byte ECE changes by +0.0008 {ends}" in flat
    )
    assert "only the signed gap is told apart" in flat
    assert page.figures()[:2] == ["against", "reliability-byte"]
    plot = page.plots_of("against")[1]
    drawn, names = plot["data"][0], ["1,024 − 512", "2,048 − 512", "2,048 − 1,024"]
    assert plot["layout"]["yaxis"]["ticktext"] == names
    assert len(set(drawn["y"])) == 3
    assert drawn["error_x"]["array"][1] == pytest.approx(half)
    assert "widened so that all 3 hold together" in page.findings()

    page = report({**base, 2048: [0.110, 0.114, 0.1121]})
    assert "Byte ECE differs with vocabulary size in 2 of 3 comparisons" in page.findings()
    assert "+0.1000 [+0.0998, +0.1003] (2,048 against 512)" in page.findings()
    assert "both are told apart" in page.findings()
    assert 'class="num apart"' in page.part("results")


def test_what_ablation_json_says_of_bytes_is_read(tmp_path: Path) -> None:
    content = write_study(tmp_path / "s", sizes=(512, 1024), seeds=(0, 1))
    for arm in content["arms"]:
        found = add_event(tmp_path / "s" / arm["folder"])
        flat = {k: v for k, v in found.items() if isinstance(v, str | int | float)}
        sample = {"documents": 59, "of_documents": 60, "of_bytes": 9e5, "bytes": TEST_BYTES}
        flat["sample"] = sample | {"cut": False, "text_hash": "ab"}
        arm["evaluations"]["kjv-test-byte"] = flat
    sized = [{"tokenizer.vocab_size": size} for size in (1024, 512)]
    difference = {"evaluation": "kjv-test-byte", "settings": sized[0], "reference": sized[1]}
    figures = {"seeds": 2, "mean": {"ece": 0.123}, "half_width": {"ece": 0.01}}
    content["differences"] = [difference | figures]
    (tmp_path / "s" / "ablation.json").write_text(json.dumps(content))
    page = page_of(tmp_path / "s")
    assert "+0.1230 [+0.1130, +0.1330] (1,024 against 512)" in page.findings()


def test_a_study_sets_byte_events_against_its_axis(tmp_path: Path) -> None:
    content = write_study(tmp_path / "s", sizes=(512, 1024), seeds=(0, 1))
    eces = {512: [0.01, 0.02], 1024: [0.03, 0.05]}
    for size, values in eces.items():
        for seed, ece in enumerate(values):
            add_event(tmp_path / "s" / f"vocab_size={size},seed={seed}", ece=ece)
    page = page_of(tmp_path / "s")
    mean, seeds = page.plots_of("against")[0]["data"]
    assert mean["x"] == [512, 1024]
    assert mean["y"] == pytest.approx([0.015, 0.04])
    halves = [student_half_width(values) for values in eces.values()]
    assert mean["error_y"]["array"] == pytest.approx(halves)
    assert sorted(seeds["y"]) == [0.01, 0.02, 0.03, 0.05]
    titles = re.findall(r"<h3>(.*?)</h3>", page.part("against"))
    assert titles[:2] == ["Byte ECE", "Byte ECE: paired differences"]
    assert "Bits per byte" in titles
    assert 'data-value="0.015"' in page.part("results")
    assert 'data-value="0.015"' not in page.part("tokens")
    assert page.results == content


def test_notes_on_figures_are_shown_beneath_them(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    change(evaluation_file(tmp_path / "run"), notes=["one <document>", "cut"])
    page = page_of(tmp_path / "run")
    assert "kjv, test: one <document>" in page.text
    assert "kjv, test: cut" in unescape(page.part("results"))


def test_an_evaluation_of_another_text_of_the_same_name_is_not_the_main_one(tmp_path: Path) -> None:
    finals = write_run(tmp_path / "run", evaluations=("validation", "test"))
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    own = run["corpus"]["content_hash"]
    change(evaluation_file(tmp_path / "run", "validation"), corpus_hash=own)
    change(evaluation_file(tmp_path / "run", "test"), corpus_hash="0" * 16)
    said = page_of(tmp_path / "run").findings()
    assert f"{finals['kjv-validation']['ece']:.4f} [" in said


def test_a_temperature_is_named_and_is_not_the_main_evaluation(tmp_path: Path) -> None:
    finals = write_run(tmp_path / "run", evaluations=("test",))
    path = evaluation_file(tmp_path / "run")
    content = json.loads(path.read_text())
    signatures = {k: v.replace("T:1|", "T:1.2965|") for k, v in content["signatures"].items()}
    content |= {"temperature": 1.2965, "ece": 0.000789, "signatures": signatures}
    path.with_name("a-first.json").write_text(json.dumps(content))
    page = page_of(tmp_path / "run")
    assert f"{finals['kjv-test']['ece']:.4f} [" in page.findings()
    assert "T = 1.3<" in page.part("results")
    assert "T (2 temperatures" in page.part("results")


def test_an_arm_is_read_from_the_file_its_study_means(tmp_path: Path) -> None:
    content = write_study(tmp_path / "s", sizes=(512, 1024), seeds=(0,))
    for arm in content["arms"]:
        for found in arm["evaluations"].values():
            found |= {"limit": 1000, "temperature": 1.0}
        for split in ("test", "validation"):
            change(evaluation_file(tmp_path / "s" / arm["folder"], split), limit=1000)
        path = evaluation_file(tmp_path / "s" / arm["folder"])
        other = json.loads(path.read_text()) | {"limit": None, "ece": 0.77, "bytes": TEST_BYTES * 2}
        other["intervals"] = {"ece": {"lower": 0.7, "upper": 0.8, "method": "bca"}}
        path.with_name(f"{path.stem}_whole.json").write_text(json.dumps(other))
    (tmp_path / "s" / "ablation.json").write_text(json.dumps(content))
    page = page_of(tmp_path / "s")
    assert 0.8 not in page.values
    assert "the same 212 kB" in page.findings()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"intervals": {"ece": {"lower": "no"}}}, 'intervals.ece.lower is "no", not a number'),
        ({"intervals": []}, r"intervals is \[\], not an object"),
        ({"signatures": {"ece": 1}}, "signatures.ece is 1, not a text"),
        ({"positions": [{"tokens": 1.0}]}, "positions.0.decile is missing"),
        ({"risk_coverage": [{"coverage": 1}]}, "risk_coverage.0.risk is missing"),
        ({"temperature": []}, r"temperature is \[\], not a number"),
    ],
)
def test_damage_is_named(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    write_run(tmp_path / "run", evaluations=("test",))
    change(evaluation_file(tmp_path / "run"), **values)
    with pytest.raises(UserError, match=said):
        write_report(tmp_path / "run")

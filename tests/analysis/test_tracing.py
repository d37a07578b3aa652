"""`calibtrain trace`: the text that generating gives, its band, its alarms, and odd input."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import call

from calibtrain.analysis.band import Band
from calibtrain.analysis.tracing import growing_trace, trace_run
from calibtrain.cli.trace_view import LiveTrace
from calibtrain.errors import UserError
from calibtrain.generation.given import trace_of_ids
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.of_run import generate_from_run
from calibtrain.posthoc.fit import fit_temperature_head
from calibtrain.runs.loading import opened
from calibtrain.runs.traces import TraceRecord


@pytest.fixture(scope="module")
def run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracing") / "run"
    shutil.copytree(finished_run, folder)
    return folder


@pytest.fixture(scope="module")
def model(run: Path) -> Iterator[LanguageModel]:
    with opened(run) as saved:
        yield LanguageModel.of(saved)


@pytest.mark.long
def test_a_traced_text_is_the_generated_one_and_its_band_is_kept(run: Path) -> None:
    told: list[str] = []
    rows: list[int] = []
    found = trace_run(
        run,
        seed=5,
        max_bytes=150,
        save="one",
        say=told.append,
        on_rows=lambda trace, first, alarms: rows.extend(range(first, len(trace))),
    )
    same = generate_from_run(run, [""], seed=5, max_bytes=150)
    document = found.to_dict()
    assert document["text"] == same.texts[0].data.decode(errors="replace")
    for name in ("finish_reason", "tokens", "bytes", "information_bits", "entropy_bits"):
        assert document[name] == pytest.approx(getattr(same.texts[0], name)), name
    assert rows == list(range(len(found.trace)))
    assert found.path is not None
    assert TraceRecord.read(found.path).table.num_rows == len(found.trace)
    kept = run / "traces" / "band.json"
    assert Band.read(kept) == found.band
    assert any("reference band" in line for line in told)
    assert any("held-out text is short" in line for line in told)

    told.clear()
    trace_run(run, max_bytes=20, say=told.append)
    assert not any("reference band" in line for line in told)
    kept.write_text(kept.read_text().replace('"split": "validation"', '"split": "test"'))
    with pytest.raises(UserError, match="damaged"):
        trace_run(run, max_bytes=20)
    assert found.band is not None
    Band({**found.band.about, "step": 1}, found.band.ranges, found.band.blocks, 1).write(kept)
    trace_run(run, max_bytes=20, say=told.append)
    assert any("made anew" in line for line in told)
    assert Band.read(kept) == found.band


@pytest.mark.long
def test_a_band_is_made_anew_where_its_head_was_fitted_again(run: Path) -> None:
    """The name is the same, and the temperature is not."""

    def fitted(split: str) -> float:
        head = fit_temperature_head(run, "global", name="warm", split=split, replace=True)
        return float(head.about["value"])

    def told() -> list[str]:
        said: list[str] = []
        found = trace_run(run, head="warm", max_bytes=20, say=said.append)
        assert Band.read(run / "traces" / "band-head.json") == found.band
        return said

    first = fitted("validation")
    told()
    assert not any("made anew" in line for line in told())
    assert fitted("train") != first
    assert any("made anew" in line for line in told())


def test_a_given_text_is_traced_in_parts_as_it_is_at_once(model: LanguageModel) -> None:
    letters = model.tokenizer.encode("".join(np.random.default_rng(0).choice([*"abcdef "], 900)))
    ids = np.array([model.tokenizer.bos_id, *letters])
    *some, last = growing_trace(model, ids)
    assert len(some) > 1
    (whole,) = trace_of_ids(model, [ids])
    assert last.pieces == whole.pieces
    for name in ("tokens", "rank", "repeats", "source"):
        np.testing.assert_array_equal(getattr(last, name), getattr(whole, name))
    for name in ("log_probability", "entropy", "confidence", "temperature"):
        np.testing.assert_allclose(getattr(last, name), getattr(whole, name), atol=1e-5)


@pytest.mark.parametrize(
    "data", [b"", "吾輩は猫である。".encode(), b"\xff\xfe \x00 \xe5", b"the the " * 40]
)
def test_any_bytes_are_traced(run: Path, data: bytes) -> None:
    found = trace_run(run, text=data, reference=False)
    assert b"".join(found.trace.pieces) == data
    assert found.to_dict()["bytes"] == len(data)
    assert {alarm.kind for alarm in found.alarms} == ({"loop"} if len(data) > 100 else set())


def test_what_was_read_is_kept_where_the_user_stops(run: Path) -> None:
    data = b"a text that is long enough to be read in several parts. " * 60
    found = trace_run(run, text=data, reference=False, save="part", stopped=lambda: True)
    assert found.finish_reason == "interrupted"
    assert len(found.trace) > 0
    kept = b"".join(found.trace.pieces)
    assert kept != data
    assert data.startswith(kept)
    assert found.path is not None
    assert TraceRecord.read(found.path).table.num_rows == len(found.trace)


@pytest.mark.long
def test_lines_are_json_and_the_rest_goes_to_standard_error(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"ab ab ab " * 40 + b"\xff")
    done = call("trace", run, "--text", file, "--no-band", "--lines")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    alarms = [row["alarm"] for row in rows if "alarm" in row]
    assert [alarm["kind"] for alarm in alarms] == ["loop"]
    pieces = [row for row in rows if "piece" in row]
    assert pieces[-1]["piece_hex"] == "ff"
    assert "1 alarm" in done.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--text", "x", "--prompt", "y"], "--prompt"),
        (["--lines", "--json"], "--lines"),
        (["--replace"], "--replace"),
        (["--no-band", "--false-alarms", "1"], "--no-band"),
        (["--false-alarms", "0"], "--false-alarms"),
        (["--greedy", "--top-k", "3"], "--top-k"),
        (["--text", "no-such-file"], "no-such-file"),
        (["--false-alarms", "0.001"], "state"),
        (["--save", "a/b"], "--save"),
    ],
)
def test_what_cannot_be_is_one_line(run: Path, options: list[str], named: str) -> None:
    (run.parent / "x").write_text("x")
    if options[:2] == ["--text", "x"]:
        options = ["--text", str(run.parent / "x"), *options[2:]]
    done = call("trace", run, *options)
    assert done.returncode == 2
    assert done.stdout == ""
    assert named in done.stderr.splitlines()[-1]


@pytest.mark.long
@pytest.mark.parametrize("width", [60, 80])
def test_the_live_view_fits_the_terminal(
    model: LanguageModel, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: object
) -> None:
    import io

    from rich.console import Console

    out = io.StringIO()
    view = LiveTrace(Console(file=out, width=width, force_terminal=True, highlight=False))
    ids = np.array([model.tokenizer.bos_id, *model.tokenizer.encode("ab\x1b[31m cd " * 30)])
    (trace,) = trace_of_ids(model, [ids])
    with view:
        view.band(None)
        view.rows(trace, 0, [])
    shown = Console(file=io.StringIO(), width=width)
    plain = [line for line in shown.render_str(out.getvalue()).plain.splitlines() if line]
    assert "\x1b[31m cd" not in out.getvalue()
    assert any("entropy rate" in line for line in plain)

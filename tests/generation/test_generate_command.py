"""The command `generate`: one document, streams that end, and signals that keep what there is."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import call

import calibtrain as ct
from calibtrain.generation.of_run import read_trace


@pytest.fixture(scope="module")
def run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated") / "run"
    shutil.copytree(finished_run, folder)
    return folder


@pytest.mark.long
def test_json_is_one_document_and_the_trace_is_kept(run: Path) -> None:
    asked = ["generate", run, "--prompt", "a", "--samples", "2", "--max-tokens", "12"]
    done = call(*asked, "--save", "first", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["seed"], found["sampling"]) == (0, {})
    trace = read_trace(run, "first")
    for number, text in enumerate(found["texts"]):
        assert text["finish_reason"] in ("end", "length", "loop")
        rows = [row for row in trace.table.to_pylist() if row["text"] == number]
        own = [row for row in rows if row["source"] == "generated"]
        assert len(own) == text["tokens"] <= 12
        assert sum(row["bytes"] for row in own) == text["bytes"]
        assert own[-1]["information_bits"] == pytest.approx(text["information_bits"])
        spelled = b"".join(row["piece"] for row in own).decode(errors="replace")
        assert spelled == text["text"]
    kept = call(*asked, "--weights", "bfloat16", "--json")
    assert (kept.returncode, json.loads(kept.stdout)["weights"]) == (0, "bfloat16"), kept.stderr
    again = call(*asked, "--save", "first")
    assert again.returncode == 2
    assert "first is there already" in again.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--greedy", "--top-k", "3"], "--top-k: does not change"),
        (["--greedy", "--samples", "3"], "--samples: 3 greedy texts"),
        (["--temperature", "0"], "--temperature: 0.0 is not allowed"),
        (["--min-p", "2"], "--min-p: 2.0 is not allowed"),
        (["--lookahead-top", "3"], "--lookahead-top: is for --lookahead"),
        (["--lines", "--json"], "--lines, --json"),
        (["--replace"], "--replace: is for --save"),
        (["--prompt", "a", "--prompt-file", "b"], "--prompt, --prompt-file"),
        (["--prompt-file", "not there"], "--prompt-file: not there cannot be read"),
        (["--stop", ""], "--stop: an empty text"),
        (["--save", "../x"], "--save: '../x' is not allowed"),
        (["--decoding", "beam", "--top-k", "3"], "--top-k: is not used with --decoding beam"),
        (["--decoding", "beam", "--beam-groups", "2"], "--beam-groups: is not used"),
        (["--decoding", "diverse-beam", "--beam-width", "7"], "--beam-groups: 4: must divide"),
        (["--decoding", "beam", "--samples", "6"], "--samples: 6 is more than the beam holds"),
        (["--decoding", "beam", "--weights", "bfloat16"], "--weights: is not used with --decoding"),
        (["--decoding", "beam", "--greedy"], "--greedy: is not a part of --decoding beam"),
        (["--beam-width", "3"], "--beam-width: is not used with --decoding sample"),
        (["--decoding", "mbr", "--utility", "x"], "--utility: 'x': must be one of chrf, bleu"),
        (["--decoding", "mbr", "--samples", "1"], "--samples: 1 leaves mbr no choice"),
    ],
)
def test_what_does_not_go_together_is_one_line(run: Path, options: list[str], said: str) -> None:
    done = call("generate", run, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"calibtrain: {said}"), done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.long
def test_the_library_gives_what_the_command_prints(run: Path) -> None:
    done = call("generate", run, "--prompt", "a", "--max-tokens", "12", "--top-p", "0.9")
    found = ct.open_run(run).generate("a", max_tokens=12, top_p=0.9)
    assert done.stdout == found.texts[0] + "\n"
    assert list(found.trace["source"])[:2] == ["prompt", "generated"]
    assert "1 text, seed 0" in repr(found)
    with pytest.raises(ct.errors.UserError, match="top_p: 2 is not allowed"):
        ct.open_run(run).generate(top_p=2)
    with pytest.raises(ct.errors.UserError, match="topp: is not a setting"):
        ct.open_run(run).generate(topp=2)


@pytest.mark.long
def test_rows_are_shared_among_devices(run: Path) -> None:
    asked = ["generate", run, "--samples", "5", "--max-tokens", "60", "--json"]
    one = json.loads(call(*asked).stdout)
    two = call(*asked, environment={"XLA_FLAGS": "--xla_force_host_platform_device_count=2"})
    assert two.returncode == 0, two.stderr
    for text, other in zip(one["texts"], json.loads(two.stdout)["texts"], strict=True):
        assert text["text"] == other["text"]
        assert text["entropy_bits"] == pytest.approx(other["entropy_bits"], rel=1e-5)


@pytest.mark.long
def test_an_interruption_and_a_closed_pipe_keep_what_was_drawn(run: Path) -> None:
    command = [sys.executable, "-m", "calibtrain", "generate", str(run), "--no-loop-stop"]
    endless = [*command, "--max-bytes", "10000000", "--rows", "1", "--samples", "50", "--lines"]
    for number in (signal.SIGINT, signal.SIGTERM, None):
        name = f"signal{number and int(number)}"
        process = subprocess.Popen(
            [*endless, "--save", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["position"] == 0
        if number is None:
            process.stdout.close()
            process.wait(60)
        else:
            process.send_signal(number)
            process.communicate(timeout=60)
        assert process.returncode == (141 if number is None else 128 + number)
        assert len(read_trace(run, name).table) > 0


@pytest.mark.long
def test_a_beam_of_one_is_greedy_and_mbr_chooses_one_of_its_samples(run: Path) -> None:
    asked = ["generate", run, "--prompt", "a", "--max-tokens", "8", "--json"]
    greedy, beam, chosen = (
        json.loads(call(*asked, *options).stdout)
        for options in (
            ("--decoding", "greedy", "--no-loop-stop"),
            ("--decoding", "beam", "--beam-width", "1"),
            ("--decoding", "mbr", "--samples", "5", "--utility", "edit"),
        )
    )
    assert beam["texts"][0]["text"] == greedy["texts"][0]["text"]
    assert beam["texts"][0]["information_bits"] == pytest.approx(
        greedy["texts"][0]["information_bits"], rel=1e-4
    )
    (best,) = chosen["texts"]
    assert best["text"] == chosen["samples_drawn"][best["sample"]]["text"]
    assert 0 <= best["expected_utility"] <= 100

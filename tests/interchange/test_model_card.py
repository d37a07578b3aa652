"""The model card of an export says what the run's own files say."""

import json
import re
from pathlib import Path

import yaml

from calibtrain.interchange.model_card import model_card
from calibtrain.metrics.quantities import QUANTITIES
from calibtrain.runs.folder import RunFolder


def card_of(run: Path, step: int = 24, notes: tuple[str, ...] = ()) -> str:
    return model_card(RunFolder(run), step, "LlamaForCausalLM", 32, notes)


def test_the_front_matter_is_what_hugging_face_reads(finished_run: Path) -> None:
    text = card_of(finished_run)
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "transformers"
    assert "calibration" in yaml.safe_load(front)["tags"]
    assert body.lstrip().startswith("# run")


def test_it_holds_every_evaluation_with_intervals_and_signatures(finished_run: Path) -> None:
    text = card_of(finished_run, notes=("the <|end|> token | is text",))
    files = list((finished_run / "evaluations").glob("*-24.json"))
    assert len(files) == 2
    for path in files:
        result = json.loads(path.read_text())
        section = text.split(f"### markov, {result['split']} split, by token")[1].split("\n## ")[0]
        section = section.split("\n### ")[0]
        ece = QUANTITIES["ece"]
        heading = f"| {ece.name} ({ece.unit_of()}) |"
        (row,) = [line for line in section.splitlines() if line.startswith(heading)]
        _, _, value, interval, signature, _ = (c.strip() for c in re.split(r"(?<!\\)\|", row))
        ends = result["intervals"]["ece"]
        assert value == ece.show(result["ece"])
        assert interval == f"{ece.show(ends['lower'])} to {ece.show(ends['upper'])}"
        assert signature.replace("\\|", "|") == f"`{result['signatures']['ece']}`"
    assert "seed 0" in text
    assert r"\<\|end\|\> token \| is text" in text


def test_a_step_without_evaluations_says_so(finished_run: Path) -> None:
    text = card_of(finished_run, step=6)
    assert "Not measured" in text
    assert "### " not in text

"""The lens: its last layer is the model's own prediction, and its measures are known ones."""

import doctest
import functools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import call
from heads import KINDS, head_config, stirred
from scipy import stats
from sklearn.dummy import DummyClassifier
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from calibtrain import figures
from calibtrain.analysis import lens, separation
from calibtrain.analysis.lens import LayerEntropies, layer_entropies, renyi_entropy
from calibtrain.analysis.lens_of_run import look_into_run, read_labelled
from calibtrain.analysis.separation import CrossValidation
from calibtrain.config import ModelConfig, TokenizerConfig
from calibtrain.data.tokenizers.tokenizer_choice import train_tokenizer
from calibtrain.errors import UserError
from calibtrain.generation import windows
from calibtrain.generation.given import trace_of
from calibtrain.generation.language_model import LanguageModel
from calibtrain.models import TEMPERATURE, build
from calibtrain.runs.instrument_records import LensRecord
from calibtrain.temperature import tempered

TEXTS = ["In the beginning", "吾輩は猫である。", "", "a"]
BYTES = train_tokenizer(TokenizerConfig(kind="byte"), TEXTS, corpus_hash="", corpus_name="texts")


@functools.cache
def model_of(kind: Any = "transformer", head: str | None = None, depth: int = 2) -> LanguageModel:
    """A model of bytes with logits far from uniform, and a head that changes them."""
    config = ModelConfig(kind=kind, width=16, depth=depth, heads=2, logit_soft_cap=5.0, tied=False)
    network = build(config, 258)
    params = jax.jit(network.init)(jax.random.key(0))
    params = jax.tree.map(lambda x: 3 * x, params)
    if head is not None:
        network = tempered(network, head_config(head))
        assert network.head is not None
        params = stirred({**params, TEMPERATURE: network.head.init(jax.random.key(1))})
    return LanguageModel(network, params, BYTES, context=16)


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
@pytest.mark.parametrize("head", [None, *(pytest.param(k, marks=pytest.mark.long) for k in KINDS)])
def test_the_last_layer_is_the_models_own_entropy(kind: str, head: str | None) -> None:
    model = model_of(kind, head)
    found = layer_entropies(model, TEXTS)
    for own, trace in zip(found, trace_of(model, TEXTS), strict=True):
        assert own.pieces == trace.pieces
        assert own.entropy["shannon"].shape == (2, len(trace))
        np.testing.assert_allclose(own.entropy["shannon"][-1], trace.entropy, atol=1e-5)
    assert len(found[1].tokens) > model.context  # read by windows
    assert np.abs(np.diff(found[0].entropy["shannon"], axis=0)).max() > 0.01


@pytest.mark.long
def test_a_layer_is_the_last_one_of_the_model_that_ends_there() -> None:
    model = model_of()
    short = model_of(depth=1)
    params = {**model.params, "blocks": {n: model.params["blocks"][n] for n in (0,)}}
    cut = LanguageModel(short.network, params, BYTES, context=16)
    whole, part = (layer_entropies(each, TEXTS, renyi=[2]) for each in (model, cut))
    for one, other in zip(whole, part, strict=True):
        for name in ("shannon", "renyi-2"):
            np.testing.assert_allclose(one.entropy[name][:1], other.entropy[name], atol=1e-5)


def test_a_prompt_is_seen_and_not_counted() -> None:
    model = model_of()
    (alone,) = layer_entropies(model, ["In the"])
    (after,) = layer_entropies(model, ["the"], prompts=["In "])
    assert (alone.read, after.read) == (0, 3)
    np.testing.assert_allclose(after.entropy["shannon"], alone.entropy["shannon"], atol=1e-6)
    np.testing.assert_allclose(after.profile(), alone.entropy["shannon"][:, 3:].mean(1), rtol=1e-5)


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, 5.0, math.inf])
def test_renyi_entropies_are_those_of_the_definition(order: float) -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(9), 4)
    if order == 1:
        wanted = stats.entropy(p, axis=1)
    elif math.isinf(order):
        wanted = -np.log(p.max(1))
    else:
        wanted = np.log((p**order).sum(1)) / (1 - order)
    logits = jnp.asarray(np.log(p) + 7, jnp.float32)
    padded = jnp.pad(logits, ((0, 0), (0, 3)), constant_values=-1e30)
    labels = jnp.zeros(4, jnp.int32)
    np.testing.assert_allclose(renyi_entropy(order)(logits, labels), wanted, atol=2e-6)
    np.testing.assert_allclose(renyi_entropy(order)(padded, labels), wanted, atol=2e-6)


@pytest.mark.parametrize("order", [0.0, -1.0, 1.0001, math.nan])
def test_an_order_that_is_not_allowed_is_named(order: float) -> None:
    with pytest.raises(UserError, match=r"^--renyi: .* a number above 0"):
        layer_entropies(model_of(), ["a"], renyi=[order])


def test_what_rises_and_falls_is_counted_and_averaged_in_windows() -> None:
    entropy = np.array([[9.0, 1, 1, 1, 3], [9, 2, 2, 1, 3 + 1e-8], [9, 1, 3, 0, 4]])
    found = LayerEntropies(np.arange(5), [b"x"] * 5, {"shannon": entropy}, read=1)
    assert found.changes() == ([2, 2], [0, 2])
    assert found.profile().tolist() == pytest.approx([1.5, 2, 2])
    assert found.profiles(3).tolist() == [[1, 5 / 3, 4 / 3], pytest.approx([3, 3, 4])]
    assert np.isnan(LayerEntropies(np.arange(0), [], {"shannon": entropy[:, :0]}).profile()).all()


def test_neighbours_and_areas_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    labels = np.array(["poem", "proof", "recipe"])[rng.integers(0, 3, 120)]
    features = rng.normal(size=(120, 4)) + (labels == "proof")[:, None]
    found = separation.separation(features, labels.tolist(), CrossValidation(7, 5, 3))
    codes = np.unique(labels, return_inverse=True)[1]
    member = separation.stratified_folds(codes, 5, 3)
    areas = []
    for fold in range(5):
        train, test = member != fold, member == fold
        theirs = KNeighborsClassifier(7, algorithm="brute").fit(features[train], labels[train])
        shares = theirs.predict_proba(features[test])
        areas.append(roc_auc_score(labels[test], shares, multi_class="ovr"))
    assert found.folds == pytest.approx(areas)
    assert found.area == pytest.approx(np.mean(areas))
    for label in range(3):
        dealt = np.bincount(member[codes == label], minlength=5)
        assert dealt.max() - dealt.min() <= 1
    dummy = DummyClassifier(strategy="stratified", random_state=0).fit(features, labels)
    chance = roc_auc_score(labels, dummy.predict_proba(features), multi_class="ovr")
    assert found.dummy_area == pytest.approx(chance, abs=0.15)
    assert found.lower < found.area - found.dummy_area < found.upper


def test_the_paired_test_is_students_where_nothing_overlaps() -> None:
    difference = np.array([0.1, 0.3, 0.2, 0.25, -0.05])
    lower, upper, p = separation._corrected_t(difference, test_share=0.0)
    theirs = stats.ttest_1samp(difference, 0.0)
    assert p == pytest.approx(theirs.pvalue)
    assert (lower, upper) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    wider = separation._corrected_t(difference, test_share=1 / 4)
    assert wider[2] > p


def test_labels_without_a_difference_are_not_told_apart() -> None:
    rng = np.random.default_rng(5)
    found = [
        separation.separation(
            rng.normal(size=(60, 3)), ["a", "b"] * 30, CrossValidation(5, 10, seed)
        ).p
        for seed in range(40)
    ]
    assert np.mean(np.array(found) < 0.05) <= 0.1


@pytest.mark.parametrize(
    ("labels", "options", "told"),
    [
        (["a"] * 4, {}, "all texts have the label 'a'"),
        (["a"] * 12 + ["b"] * 3, {}, "'b' has 3 texts, and each of 10 folds"),
        (["a", "b"], {"neighbours": 0}, "--neighbours: 0"),
        (["a", "b"], {"folds": 1}, "--folds: 1"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused(
    labels: list[str], options: dict[str, int], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        separation.separation(np.zeros((len(labels), 2)), labels, CrossValidation(**options))


@pytest.mark.parametrize("module", [lens, separation, windows])
def test_the_examples_run(module: Any) -> None:
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


@pytest.fixture(scope="module")
def run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(finished_run, tmp_path_factory.mktemp("lens") / "run")


def test_the_map_holds_every_token_and_layer_of_every_text(run: Path) -> None:
    found = look_into_run(run, ["ab", b"", "吾"], renyi=[2.0], window=1)
    document = found.to_dict()
    assert document["layers"] == 1
    for text, own in zip(document["texts"], found.found, strict=True):
        spelled = [
            row["piece"].encode() if row["piece"] is not None else bytes.fromhex(row["piece_hex"])
            for row in text["rows"]
        ]
        assert spelled == list(own.pieces)
    assert [text["tokens"] for text in document["texts"]] == [len(x.tokens) for x in found.found]
    assert document["texts"][1]["profile"] == {"shannon": [None], "renyi-2": [None]}
    for text, own in zip(document["texts"], found.found, strict=True):
        assert text["windows"]["shannon"] == own.entropy["shannon"].T.tolist()
        assert all(
            row["entropy"]["renyi-2"][0] <= row["entropy"]["shannon"][0] + 1e-6
            for row in text["rows"]
        )
    figure = figures.entropy_lens(document, "renyi-2")
    (drawn,) = figure.data
    gaps = sum(cell is None for cell in drawn.z[0])
    assert len(drawn.z[0]) == sum(len(each.tokens) for each in found.found) + gaps
    assert drawn.z[0][0] == pytest.approx(found.found[0].entropy["renyi-2"][0, 0])
    with pytest.raises(ValueError, match="'renyi-3' is not in the document"):
        figures.entropy_lens(document, "renyi-3")


def test_labelled_texts_have_profiles_and_an_area(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "labelled.jsonl"
    rows = [{"text": "ab" * (1 + n), "label": "ab"[n % 2], "prompt": "x"} for n in range(8)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = look_into_run(run, labelled=read_labelled(file), by=CrossValidation(3, folds=4))
    document = found.to_dict()
    assert [text["label"] for text in document["texts"]] == ["a", "b"] * 4
    assert "rows" not in document["texts"][0]
    assert 0 <= document["separation"]["shannon"]["area"] <= 1
    assert len(document["separation"]["shannon"]["folds"]) == 4
    assert len(figures.entropy_lens(document).data) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--text: give a text, a --text-file, or --labelled texts"),
        (["--text", "a", "--folds", "3"], "--folds: is of --labelled"),
        (["--text", "a", "--window", "0"], "--window: 0 is not allowed; at least 1"),
        (["--text", "a", "--renyi", "0"], "--renyi: 0 is not allowed"),
        (["--text", "a", "--max-bytes", "3"], "--max-bytes: is of --text-file"),
        (["--text", ""], "--text: is empty; give a text"),
        (["--text", "a", "--figure", "a.png"], "--figure: a.png is not allowed"),
        (["--text", "a", "--head", "none"], "none"),
        (["--text-file", "absent"], "--text-file: absent cannot be read"),
        (["--labelled", "labels.txt"], "--labelled: labels.txt: is not one of .csv"),
        (["--labelled", "l.jsonl", "--text", "a"], "--text: does not go with --labelled"),
        (["--labelled", "l.jsonl"], "'a' has 1 texts, and each of 10 folds"),
        (["--labelled", "bad.jsonl"], "bad.jsonl, line 1: has no 'label'"),
    ],
)
@pytest.mark.long
def test_what_is_wrong_is_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("l.jsonl").write_text('{"text": "x", "label": "a"}\n{"text": "y", "label": "b"}\n')
    Path("bad.jsonl").write_text('{"text": "x"}\n')
    done = call("lens", run, *arguments)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert told in line


@pytest.mark.long
def test_the_command_prints_json_and_a_map(run: Path, tmp_path: Path) -> None:
    file, page = tmp_path / "lens.json", tmp_path / "lens.html"
    done = call("lens", run, "--text", "ab[/]", "--json", "--output", file, "--figure", page)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert json.loads(file.read_text()) == document
    assert "".join(row["piece"] for row in document["texts"][0]["rows"]) == "ab[/]"
    assert "plotly" in page.read_text("utf-8")
    kept = run / "analysis" / "lens-texts.json"
    assert document.items() <= LensRecord.read(kept).document().items()
    done = call("lens", run, "--text", "ab[/]")
    assert f"written: {kept}" in done.stderr
    assert "mean entropy after each layer" in done.stdout
    assert "[" in done.stdout.split("mean")[0]

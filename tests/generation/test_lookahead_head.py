"""A learned look-ahead: it finds a known law, draws by it, and is kept with its run."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import call

from calibtrain.analysis.lookahead_fit import Lookahead
from calibtrain.analysis.lookahead_head_fit import (
    Pairs,
    Recipe,
    agreement,
    correlation_within,
    fit_lookahead_head,
    fit_pairs,
    read_pairs,
)
from calibtrain.analysis.lookahead_table import read_lookahead
from calibtrain.analysis.of_run import opened_to_analyse
from calibtrain.config.temperature import GlobalTemperature
from calibtrain.errors import UserError
from calibtrain.generation.generate import generate
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.lookahead_head import (
    LookaheadHead,
    divided_by,
    learned_entropies_after,
    predicted_entropies,
    read_head,
    write_head,
)
from calibtrain.generation.samplers import Sampling
from calibtrain.runs.latest_checkpoint import checkpoint_facts
from calibtrain.runs.loading import opened
from calibtrain.temperature.saved_head import SavedHead

VOCAB, WIDTH = 12, 6


def head_of(rng: np.random.Generator, vocab: int = VOCAB, width: int = WIDTH) -> LookaheadHead:
    return LookaheadHead(
        jnp.float32(2.0),
        *(
            jnp.asarray(0.3 * rng.normal(size=shape), jnp.float32)
            for shape in ((vocab,), (width,), (width, 2), (vocab, 2))
        ),
    )


def pairs_of(head: LookaheadHead, rng: np.random.Generator, count: int) -> Pairs:
    hidden = rng.normal(size=(count, WIDTH)).astype(np.float32)
    tokens = rng.integers(0, VOCAB, count)
    whole = np.asarray(predicted_entropies(head, jnp.asarray(hidden)))
    return Pairs(hidden, tokens, whole[np.arange(count), tokens], rng.integers(0, 9, count))


@pytest.mark.long
def test_a_head_of_enough_rank_finds_a_known_law() -> None:
    rng = np.random.default_rng(0)
    true = head_of(rng)
    fitted = fit_pairs(pairs_of(true, rng, 4000), VOCAB, Recipe(rank=4, steps=400))
    found = agreement(fitted, pairs_of(true, rng, 1000))
    r_squared = found["r_squared"]
    assert isinstance(r_squared, dict)
    assert r_squared["estimate"] is not None
    assert r_squared["estimate"] > 0.97
    additive = fit_pairs(pairs_of(true, rng, 4000), VOCAB, Recipe(rank=4, steps=400))
    additive = additive._replace(right=jnp.zeros_like(additive.right))
    worse = agreement(additive, pairs_of(true, rng, 1000))["r_squared"]
    assert isinstance(worse, dict)
    assert worse["estimate"] is not None
    assert worse["estimate"] < r_squared["estimate"] - 0.05


def test_candidates_are_the_most_probable_that_can_be_drawn() -> None:
    rng = np.random.default_rng(1)
    head, hidden = head_of(rng), jnp.asarray(rng.normal(size=(3, WIDTH)), jnp.float32)
    scores = jnp.asarray(rng.normal(size=(3, VOCAB)), jnp.float32)
    drawable = jnp.arange(VOCAB) != 5
    found = np.asarray(learned_entropies_after(head, hidden, scores, drawable, 4))
    order = np.argsort(-np.where(np.asarray(drawable), scores, -np.inf), axis=1)
    wanted = np.asarray(predicted_entropies(head, hidden))
    for row in range(3):
        assert set(np.flatnonzero(np.isfinite(found[row]))) == set(order[row, :4])
        assert found[row, order[row, :4]] == pytest.approx(wanted[row, order[row, :4]])


def test_differences_between_positions_do_not_count_within_them() -> None:
    rng = np.random.default_rng(2)
    scores = np.log(rng.dirichlet(np.ones(5), 7))
    entropy = rng.uniform(0, 3, (7, 5))
    read = Lookahead(scores, entropy, np.zeros(7, int), np.arange(7))
    shifted = dataclasses.replace(read, next_entropy=2 * entropy + rng.normal(size=(7, 1)))
    assert correlation_within(read, shifted) == pytest.approx(1)
    assert correlation_within(
        read, dataclasses.replace(read, next_entropy=-entropy)
    ) == pytest.approx(-1)


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def heat(digest: str) -> SavedHead:
    """A temperature head `global` whose parameters have a checksum."""
    about = {"parameters_sha256": digest}
    return SavedHead("global", GlobalTemperature(), about, Path("temperature/global"))


def test_a_head_is_read_with_what_it_was_fitted_to_alone(tmp_path: Path) -> None:
    head, checkpoint = head_of(np.random.default_rng(3)), {"step": 7, "sha256": "a1"}
    file = tmp_path / "lookahead" / "a.npz"
    write_head(file, head, {"checkpoint": checkpoint, **divided_by(None)})
    found, about = read_head(tmp_path, "a", checkpoint=checkpoint, temperature=None)
    assert about["checkpoint"] == checkpoint
    for own, other in zip(head, found, strict=True):
        np.testing.assert_array_equal(own, other)
    for checkpoint_read, temperature, name, said in (
        ({"step": 8, "sha256": "a1"}, None, "a", r"another checkpoint \(step 7; .* has 8\)"),
        ({"step": 7, "sha256": "b2"}, None, "a", r"another checkpoint \(sha256 a1; .* has b2\)"),
        (checkpoint, heat("1"), "a", "no temperature head, and the run is read with global"),
        (checkpoint, None, "b", "has no b; there are: a"),
        (checkpoint, None, "../a", r"^--lookahead-head: '../a' is not allowed; a letter"),
    ):
        with pytest.raises(UserError, match=said):
            read_head(tmp_path, name, checkpoint=checkpoint_read, temperature=temperature)
    write_head(file, head, {"checkpoint": checkpoint, **divided_by(heat("1"))})
    read_head(tmp_path, "a", checkpoint=checkpoint, temperature=heat("1"))
    for temperature, said in (
        (
            heat("2"),
            "global of other parameters, which was fitted again since",
        ),
        (None, "fitted with global, and the run is read with no temperature head"),
    ):
        with pytest.raises(UserError, match=said):
            read_head(tmp_path, "a", checkpoint=checkpoint, temperature=temperature)
    write_head(file, head, {"checkpoint": checkpoint, **divided_by(None)})
    whole = file.read_bytes()
    for damaged in (b"", b"PK", whole[:-40], whole[:200] + bytes(50) + whole[250:]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged"):
            read_head(tmp_path, "a", checkpoint=checkpoint, temperature=None)


@pytest.mark.long
def test_a_run_is_fitted_and_drawn_by_its_head(run: Path) -> None:
    options = ("--steps", "30", "--positions", "10", "--candidates", "4", "--json")
    fitted = call("lookahead", run, *options)
    assert fitted.returncode == 0, fitted.stderr
    again = call("lookahead", run, *options)
    assert again.returncode == 2
    assert "default is there already" in again.stderr
    with opened(run) as saved:
        model, checkpoint = LanguageModel.of(saved), checkpoint_facts(saved.run, saved.config)
        text = next(iter(saved.corpus(None).documents("test"))).text
    head, about = read_head(run, "default", checkpoint=checkpoint, temperature=None)
    assert -1 <= about["within"] <= 1
    # what the pairs say of a token is what reading that token says
    ids = model.prompt_ids(text)[: model.context]
    pairs = read_pairs(model, [ids])
    read = read_lookahead(model, [ids], [(0, 3)], top=model.network.vocab_size)
    assert read.next_entropy[0, read.true[0]] == pytest.approx(pairs.entropies[2], abs=1e-4)
    drawn = call(
        *("generate", run, "--lookahead", "0.5", "--lookahead-head", "default", "--json"),
        *("--lookahead-top", "5", "--max-bytes", "20", "--no-loop-stop"),
    )
    assert drawn.returncode == 0, drawn.stderr
    own = dataclasses.replace(model, lookahead=head)
    sampling = Sampling(lookahead=0.5, lookahead_top=5, lookahead_head="default")
    (same,) = generate(own, [""], sampling=sampling, max_bytes=20, loop_stop=False)
    assert json.loads(drawn.stdout)["texts"][0]["text"] == same.text
    first = own.prompt_ids("")
    table = read_lookahead(own, [np.append(first, same.trace.tokens[:1])], [(0, 1)], top=5)
    bent = table.log_probability[0] - 0.5 * table.next_entropy[0]
    bent -= np.log(np.exp(bent).sum())
    assert same.trace.sampling_log_probability[0] == pytest.approx(bent[table.true[0]], abs=1e-4)


@pytest.mark.long
def test_an_lstm_is_fitted_too(finished_lstm: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished_lstm, tmp_path / "lstm"))
    recipe = Recipe(rank=2, steps=5, candidates=3, positions=4)
    with opened_to_analyse(run) as analysed:
        about, path = fit_lookahead_head(analysed, recipe, name="small", limit=2_000)
        with pytest.raises(UserError, match="small is there already"):
            fit_lookahead_head(analysed, recipe, name="small")
    assert path == run / "lookahead" / "small.npz"
    assert about["candidates"] == 3
    with opened(run) as saved:
        model, checkpoint = LanguageModel.of(saved), checkpoint_facts(saved.run, saved.config)
        text = next(iter(saved.corpus(None).documents("test"))).text
    read_head(run, "small", checkpoint=checkpoint, temperature=None)
    ids = model.prompt_ids(text)[: model.context]
    pairs = read_pairs(model, [ids])
    read = read_lookahead(model, [ids], [(0, 3)], top=model.network.vocab_size)
    assert read.next_entropy[0, read.true[0]] == pytest.approx(pairs.entropies[2], abs=1e-4)


def test_a_head_without_a_look_ahead_is_refused(run: Path) -> None:
    found = call("generate", run, "--lookahead-head", "default")
    assert found.returncode == 2
    assert "--lookahead-head: is for --lookahead" in found.stderr
    missing = call("generate", run, "--lookahead", "0.5", "--lookahead-head", "default")
    assert missing.returncode == 2
    assert "has no default; there are: none yet" in missing.stderr

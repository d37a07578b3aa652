"""A perfect model has no gap in any stratum, nor in its mass; and one wrong on rare tokens has."""

import dataclasses
from collections import defaultdict
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.strata import (
    ECE,
    OUTCOME,
    SOURCE,
    TokenModel,
    WordModel,
    gaps,
    simulated,
    strata_of_words,
)
from calibtrain.data.batches.token_store import TokenStore
from calibtrain.data.corpora.synthetic import markov_source
from calibtrain.evaluation.event_figures import compute_results
from calibtrain.evaluation.event_sums import EventSums, ScoredEvents
from calibtrain.evaluation.frequency import decile_columns
from calibtrain.evaluation.strata import ENTROPY, FREQUENCY, POSITION, PREDICTION
from calibtrain.evaluation.tokens import TokenEvaluator

MARKOV = markov_source(SOURCE)
BEFORE = (PREDICTION, POSITION, ENTROPY)
BY_TOKEN = ("frequency_deciles", "frequency_mass", *(stratum.name for stratum in BEFORE))


def assert_no_gap(found: list[Any]) -> set[str]:
    """All gaps are 0 to within 4.7 standard errors; the names of their strata."""
    for name, label, gap, interval in found:
        if interval is not None and name != ECE and OUTCOME not in name:
            # three standard errors where the interval is of two
            assert abs(gap) < 1.2 * (interval["upper"] - interval["lower"]), (name, label)
    return {name for name, _, _, interval in found if interval is not None}


def outcomes(found: list[Any]) -> list[float]:
    return [abs(gap) for name, _, gap, _ in found if OUTCOME in name]


def test_a_perfect_model_has_no_gap_in_any_stratum_of_tokens() -> None:
    texts = list(MARKOV.sample_documents(600, 5))
    found = list(gaps(compute_results(TokenModel.of(MARKOV).sums(texts)), [*BY_TOKEN, "groups"]))
    assert assert_no_gap(found) >= {*BY_TOKEN, "groups"}
    # ... but where events are cut by what came it has, and the reference says how large
    assert max(outcomes(found)) > 0.2


def test_a_perfect_model_has_no_gap_by_the_word_it_predicts_but_by_the_word_that_came() -> None:
    texts, strata = list(MARKOV.sample_documents(600, 6)), strata_of_words(MARKOV)
    model, names = WordModel.of(MARKOV), ["word_pieces", "word_frequency"]
    found = list(gaps(compute_results(model.sums(texts, strata)), names))
    assert assert_no_gap(found) >= set(names)
    came = compute_results(model.sums(texts, strata, came=True))
    split = {row["label"]: row["signed_gap"] for row in came["word_pieces"]}["split"]
    assert split > 0.1


def test_the_reference_is_the_expectation_over_targets_drawn_from_the_model() -> None:
    rng = np.random.default_rng(1)
    p, deciles = rng.dirichlet(np.full(40, 0.2), 500), rng.integers(0, 10, 40)
    target = np.array([rng.choice(40, p=row) for row in p])
    best, c = p.argmax(1), p.max(1)
    values = np.column_stack([np.ones(500), np.ones(500), c, best == target, np.ones(500)])
    further = decile_columns(p @ np.eye(10)[deciles], c, deciles[target], deciles[best])
    sums = EventSums(np.full(20, 9), np.arange(20), [FREQUENCY], 10)
    document = np.arange(500) % 20
    sums.add(ScoredEvents(document, values, None, deciles[target], deciles[best], further=further))
    found = compute_results(sums)
    for row in found["frequency_deciles"]:
        here = deciles == row["decile"] - 1
        wrong = c[:, None] - (np.arange(40) == best[:, None])  # confidence less correctness
        expected = (p * wrong)[:, here].sum() / p[:, here].sum()
        assert row["reference_gap"] == pytest.approx(expected, abs=1e-12)
        assert row["excess_gap"] == pytest.approx(row["signed_gap"] - expected, abs=1e-12)
    for row in found["frequency_mass"]:
        here = deciles == row["decile"] - 1
        assert row["predicted_share"] == pytest.approx(p[:, here].sum() / 500, abs=1e-12)
        assert row["observed_share"] == pytest.approx(here[target].mean(), abs=1e-12)
        ends = row["intervals"]["gap"]
        assert ends["lower"] <= row["gap"] <= ends["upper"]


def rarest(results: dict[str, Any]) -> dict[str, float]:
    """The interval of the mass gap of the rarest tokens."""
    return results["frequency_mass"][-1]["intervals"]["gap"]


def test_mass_calibration_finds_what_the_pooled_ece_does_not() -> None:
    texts = list(MARKOV.sample_documents(60, 3))
    perfect, wrong = (compute_results(TokenModel.of(MARKOV, f).sums(texts)) for f in (1.0, 0.7))
    assert rarest(perfect)["lower"] < 0 < rarest(perfect)["upper"]
    assert rarest(wrong)["upper"] < 0
    assert wrong["intervals"]["ece"]["lower"] == 0


@pytest.mark.long
def test_intervals_hold_0_at_their_rate_for_a_perfect_model() -> None:
    held = defaultdict(list)
    for name, _, _, interval in (row for found in simulated(MARKOV, 12, 60, 1.0) for row in found):
        if interval is not None:
            held[name].append(interval["lower"] <= 1e-9 and interval["upper"] >= -1e-9)
    outcome = [share for name, share in held.items() if OUTCOME in name]
    assert len(held) - len(outcome) >= 9
    for name, each in held.items():
        if OUTCOME not in name:
            assert np.mean(each) > 0.88, name
    assert max(np.mean(each) for each in outcome) < 0.5


@pytest.mark.long
def test_a_model_that_is_wrong_on_rare_tokens_is_found_nearly_always() -> None:
    found = [compute_results(TokenModel.of(MARKOV, 0.7).sums(list(texts))) for texts in corpora(12)]
    assert sum(rarest(results)["upper"] < 0 for results in found) >= 11
    assert sum(results["intervals"]["ece"]["lower"] == 0 for results in found) >= 6


def corpora(count: int) -> list[list[str]]:
    texts = list(MARKOV.sample_documents(60 * count, 1))
    return [texts[60 * i : 60 * (i + 1)] for i in range(count)]


@dataclasses.dataclass
class FirstOrder:
    """A network whose logits are the logarithms of a table, by the token before."""

    logits: Any
    head: None = None

    @property
    def reading(self) -> dict[str, Any]:
        return {"vocab_size": self.logits.shape[1], "soft_cap": None}

    def apply(self, params: Any, tokens: Any, segments: Any) -> Any:
        return params[tokens], jnp.eye(self.logits.shape[1]), None


def test_an_evaluation_of_the_same_logits_gives_the_same_figures() -> None:
    """From hidden states through `readout` to the tables, on text of tokens that are words."""
    model, texts = TokenModel.of(MARKOV, 0.5), list(MARKOV.sample_documents(12, 4))
    document, _, token, _ = model.read(texts)
    start = model.laws.shape[1]  # one more entry, of no probability: the start of a document
    laws = np.zeros((start + 1, start + 1), np.float32)
    laws[:-2, :-1], laws[-1, :-1] = model.laws[:-1], model.laws[-1]
    logits = np.log(np.maximum(laws, 1e-30)).astype(np.float32)
    sizes = np.array([len(text) for text in texts])
    ends = np.cumsum(np.bincount(document))
    ids = np.concatenate([[start, *part] for part in np.split(token, ends[:-1])])
    offsets = np.concatenate([[0], ends + np.arange(1, len(texts) + 1)])
    names = tuple(map(str, range(len(texts))))
    byte_lengths = np.array([*(len(word) + 1 for word in MARKOV.words), 0, 0])
    store = TokenStore(ids, offsets, sizes, byte_lengths, np.bincount(ids), names)
    network: Any = FirstOrder(logits)
    deciles = np.append(model.deciles, 9)
    evaluator = TokenEvaluator(network, deciles, rows=2, context=32, bins=15)
    about = {"corpus": "markov", "split": "test", "step": 0}
    about |= dict.fromkeys(("corpus_hash", "tokenizer_hash"), "ab" * 8)
    params: Any = jnp.asarray(logits)
    found = evaluator.evaluate(params, store, about, groups=[f"{n % 3}" for n in range(12)])
    direct = compute_results(model.sums(texts))
    assert found.results["tokens"] == direct["tokens"]
    for table in ("frequency_mass", "predicted_frequency", "frequency_deciles", "groups"):
        for mine, theirs in zip(found.results[table], direct[table], strict=True):
            for key in ("gap", "signed_gap", "reference_gap", "excess_gap", "tokens"):
                if theirs.get(key) is not None:
                    assert mine[key] == pytest.approx(theirs[key], abs=2e-5), (table, key)
    assert found.results["frequency_mass"][-1]["gap"] < -0.02
    assert "|conf:all|bins:none|" in found.results["signatures"]["frequency_mass"]
    record = found.record()
    assert record.frequency_mass is not None
    assert record.frequency_mass[9].interval("gap") is not None
    assert record.strata["predicted_frequency"][0].interval("signed_gap") is not None
    midway = evaluator.evaluate(params, store, about, thorough=False).results
    assert not {"frequency_mass", "predicted_frequency"} & set(midway)
    assert "reference_gap" not in midway["frequency_deciles"][0]

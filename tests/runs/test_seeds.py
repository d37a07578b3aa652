"""Differences over seeds: paired, by Student's t."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from calibtrain.runs.evaluation_records import ArmEvaluation
from calibtrain.runs.records import ArmRecord
from calibtrain.runs.seeds import differences


def arm(size: int, seed: int, **figures: Any) -> ArmRecord:
    return ArmRecord(
        name=f"{size},{seed}",
        folder=f"{size},{seed}",
        settings={"tokenizer.vocab_size": size, "seed": seed},
        status="done",
        evaluations={"kjv-test-byte": ArmEvaluation(event="byte", limit=100, **figures)},
    )


def test_differences_are_those_of_the_same_seeds() -> None:
    values = np.random.default_rng(0).normal(size=(2, 4))
    arms = [arm(512, seed, ece=values[0, seed]) for seed in range(4)]
    arms += [arm(1024, seed, ece=values[1, seed], nll=1.0) for seed in (3, 1, 2, 0)]
    (found,) = differences(arms)
    assert found.evaluation == "kjv-test-byte"
    assert found.settings == {"tokenizer.vocab_size": 1024}
    assert found.reference == {"tokenizer.vocab_size": 512}
    assert found.seeds == 4
    assert list(found.mean) == ["ece"]  # what one lacks has no difference, nor has the limit
    interval = stats.ttest_rel(values[1], values[0]).confidence_interval()
    assert found.mean["ece"] == pytest.approx((interval.low + interval.high) / 2)
    assert found.half_width["ece"] == pytest.approx((interval.high - interval.low) / 2)


def test_every_pair_of_combinations_is_compared_where_seeds_are_shared() -> None:
    arms = [arm(size, seed, ece=size + seed) for size, seed in [(1, 0), (2, 0), (2, 1), (3, 1)]]
    found = [
        (row.settings["tokenizer.vocab_size"], row.reference["tokenizer.vocab_size"], row.seeds)
        for row in differences(arms)
    ]
    assert found == [(2, 1, 1), (3, 2, 1)]
    assert differences(arms)[0].half_width == {"ece": None}

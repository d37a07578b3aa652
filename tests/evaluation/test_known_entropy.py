"""The ground truth: a transformer trained on a source of known entropy finds that entropy."""

from pathlib import Path

import pytest

from calibtrain.config import Config, validate
from calibtrain.evaluation import train_run

pytestmark = pytest.mark.long


@pytest.mark.parametrize("vocab_size", [290, 320])
def test_a_transformer_learns_the_exact_entropy_of_a_markov_source(
    tmp_path: Path, cache: Path, vocab_size: int
) -> None:
    source = {
        "words": 32,
        "successors": 16,
        "zipf": 0.5,
        "letters": 26,
        "bytes": 3_000_000,
        "mean_document_words": 100.0,
    }
    config = validate(
        Config,
        {
            "corpus": {"name": "markov", "markov": source},
            "tokenizer": {"vocab_size": vocab_size},
            "context": {"tokens": 64},
            "model": {"width": 64, "depth": 1, "heads": 2},
            "batch": {"rows": 8},
            "budget": {"bytes": 2_500_000},
            "optimizer": {"learning_rate": 0.01, "weight_decay": 0.01, "final_fraction": 0.0},
            "evaluation": {"times": 1, "bytes": 10_000, "final_splits": ["test"]},
            "checkpoints": {"times": 1},
        },
    )
    outcome = train_run(config, tmp_path / "run")
    exact = outcome.summary["corpus"]["entropy_bits_per_byte"]
    found = outcome.results["markov-test"]
    assert found["bits_per_byte"] == pytest.approx(exact, rel=0.03)
    assert found["entropy_bits_per_byte"] == pytest.approx(exact, rel=0.03)
    assert found["ece"] < 0.02

"""Beams from prompts to texts: of a network with a byte vocabulary."""

import math
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from calibtrain.config import ModelConfig, TokenizerConfig
from calibtrain.data.tokenizers.tokenizer_choice import train_tokenizer
from calibtrain.generation import beam_texts as module
from calibtrain.generation.beam import BeamSearch
from calibtrain.generation.beam_texts import beam_texts
from calibtrain.models import build

CONTEXT = 12


@pytest.fixture(scope="module")
def model() -> Any:
    """What a beam needs of a language model, over bytes."""
    config = TokenizerConfig(kind="byte")
    tokenizer = train_tokenizer(config, ["text"], corpus_hash="", corpus_name="texts")
    network = build(ModelConfig(width=16, depth=1, heads=2), tokenizer.vocab_size)
    params = jax.tree.map(lambda x: 4 * x, jax.jit(network.init)(jax.random.key(1)))

    def prompt_ids(prompt: str) -> np.ndarray:
        return np.append(tokenizer.bos_id, tokenizer.encode(prompt))

    return SimpleNamespace(
        network=network,
        params=params,
        tokenizer=tokenizer,
        context=CONTEXT,
        prompt_ids=prompt_ids,
    )


PROMPTS = ["", "abc", "a prompt longer than the context"]
SETTINGS = BeamSearch(4, groups=2, diversity=0.5)


def test_texts_say_what_their_hypotheses_hold(model: Any) -> None:
    found = beam_texts(model, PROMPTS, SETTINGS, max_bytes=6)
    for beam, prompt in zip(found, PROMPTS, strict=True):
        assert len(beam) == 4
        for each in beam:
            ids = each.hypothesis.tokens
            assert each.text == model.tokenizer.decode(ids).decode(errors="replace")
            assert (each.tokens, each.bytes) == (len(ids), sum(index < 256 for index in ids))
            assert each.prompt_tokens == 1 + len(prompt)
            assert each.prompt_tokens_seen == min(CONTEXT, 1 + len(prompt))
            assert each.information_bits == pytest.approx(-each.score / math.log(2))
            assert each.entropy_bits == pytest.approx(sum(each.hypothesis.entropies) / math.log(2))
            assert each.finish_reason == ("end" if ids[-1] == model.tokenizer.eos_id else "length")


@pytest.mark.long
def test_a_beam_is_the_same_alone_and_by_states_that_share_nothing(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = beam_texts(model, PROMPTS, SETTINGS, max_bytes=6)
    monkeypatch.setattr(module, "can_share", lambda network, params: False)
    alone = beam_texts(model, PROMPTS, SETTINGS, max_bytes=6, rows=1)
    for one, other in zip(found, alone, strict=True):
        assert [each.hypothesis.tokens for each in one] == [
            each.hypothesis.tokens for each in other
        ]
        np.testing.assert_allclose(
            [each.information_bits for each in one],
            [each.information_bits for each in other],
            rtol=1e-4,
        )


def test_limits_that_are_not_allowed_are_refused(model: Any) -> None:
    with pytest.raises(ValueError, match=r"^max_bytes: 0: must be at least 1"):
        beam_texts(model, ["a"], max_bytes=0)
    with pytest.raises(ValueError, match=r"^rows: 0: must be at least 1"):
        beam_texts(model, ["a"], rows=0)
    assert beam_texts(model, [], max_tokens=1) == []

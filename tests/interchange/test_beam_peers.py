"""A beam finds what transformers' beam search finds, on a model of theirs that is imported.

This needs transformers and torch (`make test-peers`).
"""

from pathlib import Path

import numpy as np
import pytest
from foreign import corpus, tokenizer_json
from test_round_trip import loaded
from test_transformers import SIZES

from calibtrain.generation.beam import BeamSearch, Limits, search
from calibtrain.generation.states import DecodingStates
from calibtrain.interchange import import_model

pytestmark = [pytest.mark.peers]
transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

TOKENS = 12


@pytest.mark.parametrize("exponent", [0.0, 0.2])
@pytest.mark.parametrize("width", [1, 4])
def test_a_beam_is_that_of_transformers(width: int, exponent: float, tmp_path: Path) -> None:
    if width == 1 and exponent:
        pytest.skip("transformers decodes greedily with one beam, whatever its length penalty")
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).eval()
    folder = tmp_path / "folder"
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    import_model(folder, tmp_path / "run", corpus=corpus(tmp_path), context=1024)
    network, params, _ = loaded(tmp_path / "run")

    prompts = [np.array([1, *rest]) for rest in ([5, 9], [100], [33, 7, 61, 200])]
    # What ends a text is a token that the best text has without it, so that some of them end.
    free = model.generate(
        torch.tensor(prompts[0][None]), max_new_tokens=3, num_beams=width, do_sample=False
    )
    end, lengths = int(free[0, -1]), np.ones(network.vocab_size, np.int64)
    states = DecodingStates(network, params, rows=len(prompts) * width, context=64)
    settings = BeamSearch(width, length_normalization=exponent)
    ended = 0
    found = search(states, prompts, lengths, end, settings, Limits(TOKENS))
    for prompt, ours in zip(prompts, found, strict=True):
        theirs = model.generate(
            torch.tensor(prompt[None]),
            max_new_tokens=TOKENS,
            num_beams=width,
            num_return_sequences=width,
            length_penalty=exponent,
            early_stopping="never" if width > 1 else None,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=0,
            output_scores=True,
            return_dict_in_generate=True,
        )
        for row, each in enumerate(ours):
            continuation = theirs.sequences[row, len(prompt) :][: len(each.tokens)]
            assert tuple(continuation.tolist()) == each.tokens
            ended += each.finish_reason == "end"
        if width > 1:
            np.testing.assert_allclose(
                [each.score for each in ours], theirs.sequences_scores.numpy(), rtol=1e-3
            )
    assert 0 < ended < len(prompts) * width

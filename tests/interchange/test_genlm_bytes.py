"""A byte beam that drops nothing gives the distributions of genlm-bytes, of the same model.

genlm-bytes needs PyTorch and more, so that it lives in an environment of its own
(`pip install genlm-bytes`); GENLM_PYTHON names its interpreter. It asks this process for the
model's probabilities, so that both sum the same numbers.
"""

import json
import os
import subprocess

import numpy as np
import pytest

from calibtrain.generation.byte_beam import ByteBeam
from calibtrain.generation.byte_trie import ByteTrie
from calibtrain.generation.next_byte import NextByte

pytestmark = [pytest.mark.peers]

THEIRS = """
import asyncio, json, sys
import torch
from genlm.backend.llm import AsyncLM
from genlm.backend.tokenization import Token
from genlm.bytes import BeamParams, ByteBeamState

class Asking(AsyncLM):
    def __init__(self, pieces):
        self.byte_vocab = [Token(i, bytes.fromhex(piece)) for i, piece in enumerate(pieces)]
        self.tokenizer = type("Tokenizer", (), {"bos_token_id": -1})

    async def next_token_logprobs(self, tokens):
        print(json.dumps(tokens[1:]), flush=True)
        return torch.log(torch.tensor(json.loads(input()), dtype=torch.float64))

    def next_token_logprobs_sync(self, tokens):
        raise NotImplementedError

    async def batch_next_token_logprobs(self, all_tokens):
        return torch.stack([await self.next_token_logprobs(tokens) for tokens in all_tokens])

async def main():
    asked = json.loads(input())
    end = bytes.fromhex(asked["pieces"][-1])
    found = []
    for text in asked["texts"]:
        params = BeamParams(K=asked["width"], eos_byte_strings=[end], heal=False)
        beam = await ByteBeamState.initial(Asking(asked["pieces"]), params)
        places = []
        for byte in [*bytes.fromhex(text), None]:
            ps = (await beam.logp_next()).ps
            places.append([float(p) for p in (*ps[:256], ps[257])])
            if byte is not None:
                beam = (await (beam << byte)).prune()
        found.append(places)
        await beam.cleanup()
    print(json.dumps({"found": found}), flush=True)

asyncio.run(main())
"""


class Drawn:
    """States of a model whose distributions are drawn anew for every token sequence."""

    def __init__(self, order: np.ndarray):
        self.order, self._rows = order, dict[int, list[int]]()

    def by_id(self, tokens: list[int]) -> list[float]:
        rng = np.random.default_rng([len(tokens), *tokens])
        return rng.dirichlet(np.full(len(self.order), 0.5)).tolist()

    def start(self, prefixes: list[np.ndarray], rows: np.ndarray) -> np.ndarray:
        return self._put([prefix[1:].tolist() for prefix in prefixes], rows)

    def extend(self, sources: np.ndarray, targets: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        before = [self._rows[source] for source in sources.tolist()]
        return self._put([[*a, b] for a, b in zip(before, tokens.tolist(), strict=True)], targets)

    def copy(self, sources: np.ndarray, targets: np.ndarray) -> None:
        raise AssertionError("nothing is copied")

    def keep(self, rows: np.ndarray) -> None:
        self._rows = {row: self._rows[row] for row in rows.tolist()}

    def _put(self, sequences: list[list[int]], rows: np.ndarray) -> np.ndarray:
        self._rows.update(zip(rows.tolist(), sequences, strict=True))
        return np.array([self.by_id(sequence) for sequence in sequences])[:, self.order]


def theirs(states: Drawn, pieces: list[bytes], texts: list[bytes], width: int) -> list[np.ndarray]:
    """The probability of each next byte and the end, before each byte and after the last."""
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    asked = {
        "pieces": [piece.hex() for piece in pieces],
        "texts": [text.hex() for text in texts],
        "width": width,
    }
    with subprocess.Popen(
        [os.environ["GENLM_PYTHON"], "-c", THEIRS],
        env={**outside, "USE_JAX": "0", "USE_FLAX": "0", "USE_TF": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said: object = asked
        while True:
            process.stdin.write(json.dumps(said) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            assert line, "genlm-bytes ended before it had answered"
            answer = json.loads(line)
            if isinstance(answer, dict):
                return [np.exp(np.array(places)) for places in answer["found"]]
            said = states.by_id(answer)


def test_the_next_byte_is_that_of_genlm_bytes() -> None:
    if "GENLM_PYTHON" not in os.environ:
        pytest.skip("GENLM_PYTHON does not name a Python with genlm-bytes")
    pieces = [b"a", b"b", b"ab", b"ba", b"aab", b"\xc3\xa9", b"\xc3", b"\xa9", b"abab", b"<end>"]
    end = len(pieces) - 1
    trie = ByteTrie.of(pieces, end)
    texts = [b"ababaab", b"", b"b\xc3\xa9\xc3\xa9a"]
    states, width = Drawn(trie.order), 1000
    their = theirs(states, pieces, texts, width)
    for text, want in zip(texts, their, strict=True):
        next_byte = NextByte(ByteBeam(trie, 1, width, 0.0), states)
        next_byte.start([np.zeros(1, np.int64)])
        for place, expected in enumerate(want):
            np.testing.assert_allclose(next_byte.predict()[0], expected, rtol=1e-5, atol=1e-9)
            if place < len(text):
                next_byte.read(np.array([text[place]]))

"""Minimum Bayes risk decoding chooses what mbrs chooses, with the same expected utilities.

mbrs needs older versions of NumPy, protobuf and transformers than the rest, so that it lives in an
environment of its own (`pip install mbrs "setuptools<80"`); MBRS_PYTHON names its interpreter.
"""

import json
import os
import subprocess

import numpy as np
import pytest

from calibtrain.generation.mbr import choose

pytestmark = [pytest.mark.peers]
pytest.importorskip("sacrebleu")

SAMPLES = [
    "And God said, Let there be light: and there was light.",
    "And God said, Let there be a light: and it was so.",
    "And God saw the light, that it was good:",
    "And God said unto Moses, I AM THAT I AM",
    "And God said, Let there be light: and there was light.",
    "and the evening and the morning were the first day",
    "Then said they",
]
THEIRS = """
import json, sys
from mbrs.decoders import DecoderMBR
from mbrs.metrics import MetricBLEU, MetricChrF
texts = json.load(sys.stdin)
found = {}
for name, Metric in (("bleu", MetricBLEU), ("chrf", MetricChrF)):
    metric = Metric(Metric.Config(num_workers=1))
    choice = DecoderMBR(DecoderMBR.Config(), metric).decode(texts, texts)
    found[name] = [int(choice.idx[0]), metric.expected_scores(texts, texts).tolist()]
print(json.dumps(found))
"""


def test_the_choices_are_those_of_mbrs() -> None:
    if "MBRS_PYTHON" not in os.environ:
        pytest.skip("MBRS_PYTHON does not name a Python with mbrs")
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [os.environ["MBRS_PYTHON"], "-c", THEIRS],
        input=json.dumps(SAMPLES),
        env={**outside, "USE_JAX": "0", "USE_FLAX": "0", "USE_TF": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert set(theirs) == {"bleu", "chrf"}
    for name, (index, expected) in theirs.items():
        ours = choose(SAMPLES, name)
        np.testing.assert_allclose(ours.expected_utilities, expected, rtol=1e-5)
        assert SAMPLES[index] == ours.text

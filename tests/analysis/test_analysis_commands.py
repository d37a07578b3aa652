"""The commands entropy, memory and typicality on small runs, and what they compute on them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import call

from calibtrain.analysis.continuations import choose_continuations, given_tokens
from calibtrain.analysis.lookahead_table import read_lookahead
from calibtrain.analysis.memory import limited_log_probabilities
from calibtrain.generation.language_model import LanguageModel
from calibtrain.runs.analysis_records import EntropyRecord, MemoryRecord, TypicalityRecord
from calibtrain.runs.loading import opened


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture(params=["finished_run", "finished_lstm"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> LanguageModel:
    folder = shutil.copytree(request.getfixturevalue(request.param), tmp_path / "model")
    with opened(Path(folder)) as saved:
        return LanguageModel.of(saved)


LONGEST = 24


def whole_passes(model: LanguageModel) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what gives the next-token log-probabilities after ids, from a whole forward pass."""

    @jax.jit
    def read(params: Any, tokens: Any) -> Any:
        hidden, columns, own = model.network.apply(params, tokens, jnp.zeros_like(tokens))
        assert own is None
        return jax.nn.log_softmax(hidden[0] @ columns)

    def after(ids: np.ndarray) -> np.ndarray:
        padded = np.zeros((1, LONGEST), np.int32)
        padded[0, : len(ids)] = ids
        return np.asarray(read(model.params, padded))[len(ids) - 1]

    return after


def ids_of(model: LanguageModel, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    drawable = np.flatnonzero(model.drawable)
    return np.append(model.tokenizer.bos_id, rng.choice(drawable, count - 1)).astype(np.int32)


def test_a_look_ahead_is_the_entropy_of_a_whole_pass_over_the_longer_text(
    model: LanguageModel,
) -> None:
    ids, last_log_probabilities = ids_of(model, 20), whole_passes(model)
    found = read_lookahead(model, [ids], [(0, 7), (0, 19)], top=4)
    for row, slot in enumerate((7, 19)):
        before = last_log_probabilities(ids[:slot])
        best = np.argsort(-np.where(model.drawable, before, -np.inf))[:4]
        assert np.sort(found.log_probability[row]) == pytest.approx(
            np.sort(before[best] - np.log(np.exp(before[best]).sum())), abs=1e-4
        )
        for column, candidate in enumerate(best):
            after = last_log_probabilities(np.append(ids[:slot], candidate))
            entropy = -float(np.sum(np.exp(after) * after))
            assert found.next_entropy[row, column] == pytest.approx(entropy, abs=1e-4)
        assert found.true[row] == (list(best).index(ids[slot]) if ids[slot] in best else -1)


def test_a_limited_model_reads_the_last_tokens_alone(model: LanguageModel) -> None:
    ids, last_log_probabilities = ids_of(model, 20), whole_passes(model)
    tau = 5
    found = limited_log_probabilities(model, [ids], [(0, 9), (0, 15)], tau)
    for value, slot in zip(found, (9, 15), strict=True):
        alone = last_log_probabilities(ids[slot - tau : slot])
        assert value == pytest.approx(float(alone[ids[slot]]), abs=1e-4)
    # all that there is before a token is what the model itself predicts it from
    (whole,) = limited_log_probabilities(model, [ids], [(0, 9)], 9)
    assert whole == pytest.approx(float(last_log_probabilities(ids[:9])[ids[9]]), abs=1e-4)


def test_a_document_is_scored_from_its_prefix_on(run: Path) -> None:
    with opened(run) as saved:
        model, documents = LanguageModel.of(saved), saved.corpus(None).documents("test")
        texts = choose_continuations(documents, count=3, prefix=20, reference=100)
    for each, scored in zip(texts, given_tokens(model, texts, 60), strict=True):
        assert scored.offsets[0] < 16  # at most a token's bytes after the prefix
        assert scored.offsets[-1] < 60 <= scored.offsets[-1] + scored.bytes[-1] + 16
        assert each.prefix + each.text in {document.text for document in documents}


SMALL = ("--prompts", "6", "--prefix", "20", "--json")


@pytest.mark.long
def test_entropy_is_measured_kept_and_the_same_again(run: Path) -> None:
    options = (*SMALL, "--reference", "60", "--bin", "20", "--candidates", "4")
    found = call("entropy", run, *options, "--fit-positions", "30")
    assert found.returncode == 0, found.stderr
    record = EntropyRecord.read(run / "analysis" / "entropy-markov-test.json")
    assert json.loads(found.stdout) == record.document()
    assert [row.name for row in record.rows] == [
        *("text", "ancestral", "temperature", "top-k", "look-ahead")
    ]
    assert record.source_bits_per_byte is not None
    for row in record.rows[1:]:
        assert row.excess_bits_per_byte is not None
        assert row.bits_per_byte is not None
        assert record.rows[0].bits_per_byte is not None
        difference = row.bits_per_byte.estimate - record.rows[0].bits_per_byte.estimate
        assert row.excess_bits_per_byte.estimate == pytest.approx(difference)
        assert row.ended + row.common_texts >= row.texts
    assert record.temperature is not None
    assert record.temperature.nll_after <= record.temperature.nll_before
    assert record.lookahead is not None
    assert record.lookahead.cross_entropy <= record.lookahead.cross_entropy_before
    again = call("entropy", run, *options, "--calibrate", "none")
    rows = json.loads(again.stdout)["rows"]
    assert rows == json.loads(found.stdout)["rows"][:2]


@pytest.mark.long
def test_memory_is_measured_and_kept(run: Path, finished_lstm: Path, tmp_path: Path) -> None:
    other = shutil.copytree(finished_lstm, tmp_path / "other")
    options = ("--generated", "100", "--positions", "60", "--longest", "8", "--limited", other)
    found = call("memory", run, *SMALL, *options)
    assert found.returncode == 0, found.stderr
    record = MemoryRecord.read(run / "analysis" / "memory-markov-test.json")
    assert json.loads(found.stdout) == record.document()
    assert [row.tokens for row in record.rows] == [1, 2, 4, 8]
    assert record.limited is not None
    assert [row.tokens for row in record.limited.rows] == [1, 2, 4, 8]


@pytest.mark.long
def test_typicality_is_measured_and_kept(run: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text("text,score\n" + "".join(f"{'ab ' * n}c,{n}\n" for n in range(1, 6)))
    options = ("--generated", "60", "--beam", "2", "--scores", scores, "--judge", run)
    found = call("typicality", run, *SMALL, *options)
    assert found.returncode == 0, found.stderr
    record = TypicalityRecord.read(run / "analysis" / "typicality-markov-test.json")
    assert json.loads(found.stdout) == record.document()
    rows = {row.name: row for row in record.rows}
    assert list(rows) == ["text", "ancestral", "nucleus", "typical", "greedy", "beam"]
    # the most probable token never has more information than the entropy of its distribution
    assert rows["greedy"].deviation is not None
    assert rows["greedy"].deviation.estimate < 0
    assert [row.quality for row in record.correlations] == [
        *("repetition", "distinct_2", "judge_bits_per_byte", "score")
    ]
    # a model that judges the documents finds what it said of them; the last token may be cut
    own = rows["text"].quality["judge_bits_per_byte"]
    assert own is not None
    assert rows["text"].information is not None
    assert own.estimate == pytest.approx(rows["text"].information.estimate, rel=0.15)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("entropy", "--calibrate", "all"), "--calibrate: 'all' is not known; allowed: none,"),
        (("entropy", "--positions", "900"), "--positions: 900 is more than --reference 512"),
        (("entropy", "--prompts", "1"), "--prompts: 1 is not allowed; at least 2"),
        (("entropy", "--split", "dev"), "--split: 'dev' is not a split; allowed: train, "),
        (("entropy", "--reference", "999999"), "--reference: 999999 bytes after a prefix of 128"),
        (("memory", "--longest", "5000"), "--longest: 5000 tokens are more than the context of 32"),
        (("typicality", "--top-p", "0"), "--top-p: 0 is not allowed; 1 to 100"),
        (("typicality", "--scores", "x.txt"), "--scores: x.txt: is not one of .csv,"),
    ],
)
def test_what_is_not_allowed_is_said_in_one_line(
    run: Path, arguments: tuple[str, ...], says: str
) -> None:
    command, *options = arguments
    found = call(command, run, *options)
    assert found.returncode == 2
    assert says in found.stderr
    assert len([line for line in found.stderr.splitlines() if "calibtrain:" in line]) == 1

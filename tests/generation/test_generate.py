"""Generated texts: what their traces say is what a parallel pass says, and how they end."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calibtrain.config import Config, ModelConfig, TokenizerConfig, validate
from calibtrain.config.temperature import AFFINE
from calibtrain.data.tokenizers.tokenizer_choice import train_tokenizer
from calibtrain.errors import UserError
from calibtrain.generation.generate import GeneratedText, generate
from calibtrain.generation.given import trace_of
from calibtrain.generation.growing_text import GrowingText, Limits
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.lookahead import entropies_after
from calibtrain.generation.loops import LoopRule, LoopWatch, periods
from calibtrain.generation.samplers import Sampling
from calibtrain.models import TEMPERATURE, build
from calibtrain.models.decoding import prefill
from calibtrain.readout import log_probabilities
from calibtrain.runs.traces import TokenTrace, TraceRecord
from calibtrain.temperature import tempered

CONTEXT = 24
MODELS = {
    "transformer": ModelConfig(width=16, depth=1, heads=2),
    "lstm": ModelConfig(kind="lstm", width=16, depth=1),
}
BYTES = train_tokenizer(
    TokenizerConfig(kind="byte"), ["a text"], corpus_hash="", corpus_name="texts"
)
_made: dict[tuple[str, str | None], LanguageModel] = {}


def model_of(kind: str = "transformer", head: str | None = None) -> LanguageModel:
    """A random model over bytes, far from uniform; a head gives temperatures that differ."""
    if (kind, head) not in _made:
        network = build(MODELS[kind], BYTES.vocab_size)
        if head is not None:
            section = validate(Config, {"temperature": {"kind": head}}).temperature
            assert section is not None
            network = tempered(network, section)
        params = jax.jit(network.init)(jax.random.key(0))
        rng = np.random.default_rng(3)
        for name, part in params.items():
            change = 0.5 if name == TEMPERATURE else 0.0
            params[name] = jax.tree.map(
                lambda x, by=change: (2 - 2 * by) * np.array(x) + by * rng.normal(size=x.shape),
                part,
            )
        params["vocabulary"]["embedding"][BYTES.eos_id] = 0.0  # so that texts are long
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
        _made[kind, head] = LanguageModel(network, params, BYTES, CONTEXT, head)
    return _made[kind, head]


def columns(trace: TokenTrace) -> dict[str, np.ndarray]:
    names = ("log_probability", "entropy", "confidence", "temperature")
    return {name: getattr(trace, name) for name in names}


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("transformer", None),
        pytest.param("lstm", None, marks=pytest.mark.long),
        pytest.param("transformer", "position", marks=pytest.mark.long),
        pytest.param("transformer", "adaptive", marks=pytest.mark.long),
        pytest.param("transformer", "thermometer", marks=pytest.mark.long),
        pytest.param("transformer", "vector", marks=pytest.mark.long),
        pytest.param("transformer", "low_rank_matrix", marks=pytest.mark.long),
        pytest.param("lstm", "mlp", marks=pytest.mark.long),
    ],
)
def test_decoding_says_what_parallel_passes_say(kind: str, head: str | None) -> None:
    """Every token is compared, beyond the context too; prompts of three lengths side by side.

    To 1e-4; with a head to 3e-5 of what is compared as well: a temperature far below 1 multiplies
    the rounding of the logits, up to log-probabilities of -180.
    """
    model = model_of(kind, head)
    prompts = ["", "abc", "a prompt that is longer than the context of the model"]
    found = generate(model, prompts, max_tokens=60, rows=3, loop_stop=False)
    whole = [prompt.encode() + text.data for prompt, text in zip(prompts, found, strict=True)]
    given = trace_of(model, whole)
    share = 3e-5 if head is not None else 0.0
    for text, own in zip(found, given, strict=True):
        if text.finish_reason == "end":  # the text as it is given has no end
            text = dataclasses.replace(text, trace=_first(text.trace, len(own)))
        for name, values in columns(text.trace).items():
            np.testing.assert_allclose(values, getattr(own, name), share, 1e-4, err_msg=name)
        ties = 1 + (np.abs(text.trace.rank - own.rank) > 0).mean()
        assert ties < 1.1
    if head is not None and head not in AFFINE:
        assert np.ptp(found[2].trace.temperature) > 0.01
    assert [text.prompt_tokens for text in found] == [1, 4, 54]
    assert [text.prompt_tokens_seen for text in found] == [1, 4, 18]


def _first(trace: TokenTrace, count: int) -> TokenTrace:
    return dataclasses.replace(
        trace,
        **{
            field.name: getattr(trace, field.name)[:count]
            for field in dataclasses.fields(trace)
            if field.name != "text"
        },
    )


def same_bits(one: GeneratedText, other: GeneratedText) -> bool:
    return one.trace.table().equals(other.trace.table())


def test_a_text_depends_on_seed_and_number_alone() -> None:
    model = model_of()
    asked: dict[str, Any] = {"max_tokens": 40, "loop_stop": False}
    one = generate(model, ["abc", "x", "", "long" * 8], rows=3, **asked)
    other = generate(model, ["abc", "other", "texts"], rows=3, **asked)
    assert same_bits(one[0], other[0])
    assert not same_bits(one[1], other[1])
    assert generate(model, ["abc"], seed=1, rows=3, **asked)[0].data != one[0].data
    assert len({text.data for text in generate(model, ["abc"], samples=3, rows=3, **asked)}) == 3


@pytest.mark.long
@pytest.mark.parametrize("rows", [1, 2, 8])
def test_rows_change_a_text_by_rounding_alone(rows: int) -> None:
    prompts = ["abc", "x", "", "long" * 8, "y", "z", "0", "1"]
    one = generate(model_of(), prompts, rows=3, max_tokens=40, loop_stop=False)
    other = generate(model_of(), prompts, rows=rows, max_tokens=40, loop_stop=False)
    for text, before in zip(other, one, strict=True):
        assert text.data == before.data
        np.testing.assert_allclose(text.trace.entropy, before.trace.entropy, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_weights_in_bfloat16_say_nearly_the_same(kind: str) -> None:
    exact = model_of(kind)
    kept = exact.with_weights("bfloat16")
    kernels = [
        x for path, x in jax.tree_util.tree_leaves_with_path(kept.params) if "kernel" in str(path)
    ]
    assert {x.dtype for x in [*kernels, kept.columns]} == {jnp.dtype(jnp.bfloat16)}
    text = bytes(np.random.default_rng(0).integers(32, 127, 200).tolist())
    (own,), (other,) = trace_of(kept, [text]), trace_of(exact, [text])
    apart = np.abs(own.log_probability - other.log_probability)
    # 8 bits of a mantissa, for log-probabilities of some nats
    assert 0 < apart.mean() < 0.05
    asked: dict[str, Any] = {"max_tokens": 30, "loop_stop": False}
    alone = generate(kept, ["abc"], **asked)[0]
    (again,) = trace_of(kept, [b"abc" + alone.data])
    rows = min(len(again), len(alone.trace))
    apart = np.abs(again.log_probability[:rows] - alone.trace.log_probability[:rows])
    assert apart.mean() < 0.05
    both = generate(kept, ["abc", "x"], rows=2, **asked)
    assert same_bits(alone, both[0])


def test_weights_that_are_kept_as_they_are_lie_in_memory_once() -> None:
    model = model_of()
    kept = model.with_weights("float32")
    assert kept.about["weights"] == "float32"
    for own, other in zip(*map(jax.tree.leaves, (kept.params, model.params)), strict=True):
        assert own is other


def test_bits_are_those_of_the_trace() -> None:
    text = generate(model_of(), ["abc"], samples=3, max_tokens=20, loop_stop=False)[0]
    rows = TraceRecord.of([text.trace]).table.to_pylist()
    assert [row["source"] for row in rows] == ["prompt"] * 3 + ["generated"] * 20
    own = rows[3:]
    information = -sum(row["log_probability"] for row in own) / math.log(2)
    assert text.information_bits == pytest.approx(information)
    assert own[-1]["information_bits"] == pytest.approx(information)
    assert own[-1]["entropy_bits"] == pytest.approx(text.entropy_bits)
    assert own[-1]["entropy_rate"] == pytest.approx(text.entropy_bits / text.bytes)
    last = [row for row in rows if row["byte_offset"] >= 0]
    rate = sum(row["entropy"] for row in last) / math.log(2) / sum(row["bytes"] for row in last)
    assert own[-1]["entropy_rate_windowed"] == pytest.approx(rate)  # 23 bytes fit the window
    for row in own:
        p = [pair["log_probability"] for pair in row["alternatives"]]
        assert p == sorted(p, reverse=True)
        assert row["confidence"] == pytest.approx(math.exp(p[0]), rel=1e-5)
        better = sum(q > row["log_probability"] for q in p)
        assert row["rank"] == better + 1 if row["rank"] <= 5 else better == 5


@pytest.mark.long
def test_greedy_takes_the_first_and_ends_in_a_loop() -> None:
    (text,) = generate(model_of(), ["abc"], sampling=Sampling(greedy=True), max_tokens=2000, rows=3)
    drawn = text.trace.source == 1
    best = text.trace.alternatives[drawn]  # the first that can be drawn: not the document start
    best = np.where(best[:, 0] == BYTES.bos_id, best[:, 1], best[:, 0])
    np.testing.assert_array_equal(text.trace.tokens[drawn], best)
    assert text.finish_reason in ("loop", "end")
    if text.finish_reason == "loop":
        period = text.trace.repeats[-1]
        assert period > 0
        ids = text.trace.tokens
        assert (ids[-3 * period :].reshape(3, -1) == ids[-period:]).all()


def test_limits_and_stop_texts_end_a_text() -> None:
    model = model_of()
    whole = generate(model, ["abc"], samples=3, max_tokens=40, loop_stop=False)[0]
    assert (whole.finish_reason, whole.tokens) == ("length", 40)
    short = generate(model, ["abc"], samples=3, max_bytes=7, loop_stop=False)[0]
    assert short.data == whole.data[:7]
    assert short.finish_reason == "length"
    stop = next(chr(byte) for byte in whole.data[3:] if byte < 128)
    first = whole.data.find(stop.encode())
    cut = generate(model, ["abc"], samples=3, max_tokens=40, stop=["never this", stop])[0]
    assert cut.finish_reason == "stop"
    assert cut.text == whole.data[:first].decode(errors="replace")
    assert cut.data == whole.data[: first + 1]


def test_an_interruption_keeps_what_was_drawn() -> None:
    asked = []

    def stopped() -> bool:
        asked.append(1)
        return len(asked) > 2

    found = generate(
        model_of(), ["abc"], samples=3, max_tokens=400, rows=3, loop_stop=False, stopped=stopped
    )
    assert {text.finish_reason for text in found} <= {"interrupted", "end"}
    # 16 tokens, and then those that the first window of the context has room for
    assert max(text.tokens for text in found) == CONTEXT - len("abc")


@pytest.mark.parametrize("stopped", [False, True])
def test_a_prompt_is_traced_as_given_text_is(stopped: bool) -> None:
    """Whether it is scored where it is read to go on, beforehand, or never had its turn."""
    model = model_of()
    prompts = ["", "a", "b" * (CONTEXT - 1), "c" * CONTEXT, "d" * (CONTEXT + 1), "xy" * 20]
    texts = generate(model, prompts, max_tokens=1, rows=2, stopped=lambda: stopped)
    for text, given in zip(texts, trace_of(model, prompts), strict=True):
        assert (text.finish_reason == "interrupted") == stopped
        count = len(given)
        assert count == text.prompt_tokens - 1
        np.testing.assert_array_equal(text.trace.rank[:count], given.rank)
        for name, column in columns(given).items():
            np.testing.assert_allclose(columns(text.trace)[name][:count], column, atol=1e-5)


def test_pieces_are_the_text_and_traces_come_with_them() -> None:
    pieces: dict[int, str] = {}
    traced: dict[int, int] = {}

    def hear(number: int, piece: str) -> None:
        pieces[number] = pieces.get(number, "") + piece

    def see(number: int, trace: TokenTrace, first: int) -> None:
        assert first == max(3, traced.get(number, 3))
        traced[number] = len(trace)

    found = generate(
        model_of(), ["abc"], samples=3, max_tokens=40, rows=3, on_piece=hear, on_trace=see
    )
    for number, text in enumerate(found):
        assert pieces.get(number, "") == text.text
        assert traced[number] == len(text.trace)


def grown(data: bytes, prompt: bytes = b"", **limits: Any) -> tuple[list[str], GrowingText]:
    """The pieces of a text that is read byte by byte."""
    asked = {"tokens": None, "bytes": None, "stop": (), "loop": False, **limits}
    text = GrowingText(0, np.array([256, *prompt]), BYTES.piece_bytes, 257, Limits(**asked))
    pieces = []
    for byte in data:
        if not text.reason:
            text.read(np.array([byte]))
            pieces.append(text.piece())
    return pieces, text


def test_a_piece_never_splits_a_character() -> None:
    pieces, text = grown("né☃𝄞".encode())
    assert pieces == ["n", "", "é", "", "", "☃", "", "", "", "𝄞"]
    assert text.text == "né☃𝄞"
    pieces, text = grown("é!".encode()[1:], prompt="né".encode()[:-1])
    assert (pieces, text.text) == (["é", "!"], "é!")


def test_the_beginning_of_a_stop_text_is_not_shown() -> None:
    pieces, text = grown(b"a\n\nb\n\n\nc", stop=(b"\n\n\n",))
    assert pieces == ["a", "", "", "\n\nb", "", "", ""]
    assert (text.text, text.reason) == ("a\n\nb", "stop")


def test_loops_are_found_as_they_end() -> None:
    """A period is the shortest of which enough tokens at the end of a text are copies."""

    def direct(tokens: list[int], rule: LoopRule) -> int:
        for period in range(1, rule.longest + 1):
            end = tokens[-max(period * rule.copies, rule.tokens) :]
            enough = len(end) == max(period * rule.copies, rule.tokens)
            if enough and end[period:] == end[:-period]:
                return period
        return 0

    rng = np.random.default_rng(0)
    for rule in (LoopRule(8, 3, 6), LoopRule(5, 2, 1), LoopRule()):
        tokens = np.concatenate(
            [rng.integers(0, 3, 40), np.tile(rng.integers(0, 9, 4), 20), rng.integers(0, 3, 1040)]
        )
        expected = [direct(tokens[:end].tolist(), rule) for end in range(1, len(tokens) + 1)]
        assert periods(tokens, rule).tolist() == expected
        watch = LoopWatch(rule)
        parts = np.split(tokens, (0, 1, 2, 17, 61, 62, 110))
        assert np.concatenate([watch.read(part) for part in parts]).tolist() == expected


def test_prompts_of_any_bytes_are_spelled_exactly() -> None:
    model = model_of()
    for prompt in ("", "中文 ☃", "né".encode()[:-1], b"\xff\xfe a \xc3", b"\xa9 begins inside"):
        ids = model.prompt_ids(prompt)
        assert ids[0] == BYTES.bos_id
        assert BYTES.decode(ids) == (prompt.encode() if isinstance(prompt, str) else prompt)


@pytest.mark.long
def test_the_look_ahead_reads_every_candidate() -> None:
    """The entropy of the step after each is that of the text with the candidate at its end."""
    model = model_of()
    ids = model.prompt_ids("abcd")

    @jax.jit
    def look(params: Any) -> tuple[Any, Any]:
        count = jnp.array([len(ids)])
        hidden, heat, cache = prefill(model.network, params, ids[None], count, CONTEXT)
        cols = model.network.unembedding(params)
        scores, drawable = (
            log_probabilities(hidden, cols, temperature=heat),
            jnp.asarray(model.drawable),
        )
        return scores, entropies_after(model.network, params, cols, cache, scores, drawable, 4)

    scores, (found,) = jax.tree.map(np.asarray, look(model.params))
    looked = np.flatnonzero(np.isfinite(found))
    best = np.argsort(-np.where(model.drawable, scores[0], -np.inf))[:4]
    assert sorted(looked) == sorted(best)
    for token in looked[looked < 256]:
        # the entropy where the byte after the candidate is predicted
        (given,) = trace_of(model, [b"abcd" + bytes([token]) + b"?"])
        assert found[token] == pytest.approx(given.entropy[-1], abs=1e-4)


def test_a_trace_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = generate(model_of(), ["abc"], samples=3, max_tokens=9)
    record = TraceRecord.of([text.trace for text in found], {"seed": 0})
    path = tmp_path / "traces" / "a.parquet"
    record.write(path)
    again = TraceRecord.read(path)
    assert again.table.equals(record.table)
    assert again.about == {"format": 1, "seed": 0}
    record.write(tmp_path / "a.jsonl")
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == len(record.table)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="is not a trace, or is damaged"):
        TraceRecord.read(path)


@pytest.mark.parametrize(
    "asked",
    [{"samples": 0}, {"max_tokens": 0}, {"max_bytes": -1}, {"rows": 0}, {"stop": ["a", ""]}],
)
def test_numbers_that_are_not_allowed_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(asked))):
        generate(model_of(), ["abc"], **asked)

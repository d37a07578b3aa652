"""Beam search: against the enumeration of all texts, and against its definition in plain Python."""

import doctest
import itertools
from collections.abc import Sequence

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibtrain.config import ModelConfig
from calibtrain.generation import beam
from calibtrain.generation.beam import BeamSearch, Hypothesis, Limits, search
from calibtrain.generation.states import DecodingStates
from calibtrain.models import Network, Params, build

BOS = 1
END = 2
LENGTHS = np.array([1, 0, 0, 3, 2])
"""Bytes of each entry; the document start is never chosen, but has probability."""
VOCAB = len(LENGTHS)
DRAWABLE = [0, 2, 3, 4]
Text = tuple[int, ...]


class Table:
    """Decoding states of a model whose distributions are a random function of the tokens so far."""

    def __init__(self, seed: int, rows: int, sharpness: float = 2.0):
        self.seed, self.sharpness = seed, sharpness
        self.texts: list[Text | None] = [None] * rows

    def after(self, text: Text) -> np.ndarray:
        logits = np.random.default_rng([self.seed, *text]).normal(size=VOCAB) * self.sharpness
        weights = np.exp(logits - logits.max())
        return (weights / weights.sum()).astype(np.float32)

    def start(self, prefixes: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
        for row, prefix in zip(rows, prefixes, strict=True):
            self.texts[row] = tuple(prefix.tolist())
        return self._found(rows)

    def extend(self, sources: np.ndarray, targets: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        new = [(*self._text(row), int(token)) for row, token in zip(sources, tokens, strict=True)]
        for row, text in zip(targets, new, strict=True):
            self.texts[row] = text
        return self._found(targets)

    def copy(self, sources: np.ndarray, targets: np.ndarray) -> None:
        raise AssertionError("a beam branches as it reads")

    def keep(self, rows: np.ndarray) -> None:
        self.texts = [text if row in rows else None for row, text in enumerate(self.texts)]

    def _text(self, row: int) -> Text:
        text = self.texts[row]
        assert text is not None, "a state was read that had been dropped"
        return text

    def _found(self, rows: np.ndarray) -> np.ndarray:
        return np.array([self.after(self._text(row)) for row in rows])


def found(table: Table, settings: BeamSearch, limits: Limits) -> list[Hypothesis]:
    return search(table, [np.array([BOS])], LENGTHS, END, settings, limits)[0]


def texts_of(hypotheses: Sequence[Hypothesis]) -> list[Text]:
    return [each.tokens for each in hypotheses]


def every_text(length: int) -> list[Text]:
    """All texts that end within some tokens, and all of that length that do not."""
    on = [token for token in DRAWABLE if token != END]
    ended = [(*text, END) for size in range(length) for text in itertools.product(on, repeat=size)]
    return ended + list(itertools.product(on, repeat=length))


def log_probability(table: Table, text: Text) -> float:
    return sum(
        float(np.log(np.float64(table.after((BOS, *text[:place]))[token])))
        for place, token in enumerate(text)
    )


@pytest.mark.parametrize("exponent", [0.0, 0.6, 1.0])
def test_a_beam_as_wide_as_the_space_finds_every_text_in_the_order_of_its_score(
    exponent: float,
) -> None:
    texts = every_text(3)
    table = Table(7, len(texts))
    settings = BeamSearch(len(texts), length_normalization=exponent)
    hypotheses = found(table, settings, Limits(3))
    score = {text: log_probability(table, text) / len(text) ** exponent for text in texts}
    assert texts_of(hypotheses) == sorted(texts, key=lambda text: -score[text])
    np.testing.assert_allclose(
        [each.score for each in hypotheses], [score[each.tokens] for each in hypotheses], rtol=1e-6
    )
    for each in hypotheses:
        assert (each.finish_reason == "end") == (each.tokens[-1] == END)


@pytest.mark.parametrize("kind", ["lstm", pytest.param("transformer", marks=pytest.mark.long)])
def test_a_beam_over_a_network_finds_every_text_with_the_probability_of_full_passes(
    kind: str,
) -> None:
    network = build(ModelConfig(kind=kind, width=16, depth=1, heads=2), VOCAB)
    params = jax.tree.map(lambda x: 3 * x, jax.jit(network.init)(jax.random.key(0)))
    texts = every_text(2)
    states = DecodingStates(network, params, rows=len(texts), context=8)
    prompt = np.array([BOS, 4])
    (hypotheses,) = search(states, [prompt], LENGTHS, END, BeamSearch(len(texts)), Limits(2))
    exact = full_passes(network, params, prompt, texts)
    assert set(texts_of(hypotheses)) == set(texts)
    assert texts_of(hypotheses)[0] == max(texts, key=exact.__getitem__)
    np.testing.assert_allclose(
        [each.log_probability for each in hypotheses],
        [exact[each.tokens] for each in hypotheses],
        rtol=1e-4,
    )


def full_passes(
    network: Network, params: Params, prompt: np.ndarray, texts: list[Text]
) -> dict[Text, float]:
    """The log-probability of each text after a prompt, from all of its tokens at once."""
    tokens = np.zeros((len(texts), 8), np.int32)
    tokens[:, : len(prompt)] = prompt
    for row, text in enumerate(texts):
        tokens[row, len(prompt) : len(prompt) + len(text)] = text
    hidden, unembedding, _ = jax.jit(network.apply)(params, tokens, np.zeros_like(tokens))
    logs = np.asarray(jax.nn.log_softmax(hidden @ unembedding[:, :VOCAB]), np.float64)
    return {
        text: sum(logs[row, len(prompt) - 1 + i, token] for i, token in enumerate(text))
        for row, text in enumerate(texts)
    }


@given(st.integers(0, 10**6), st.integers(1, 8))
def test_a_beam_of_one_is_greedy(seed: int, length: int) -> None:
    table, text = Table(seed, 1), ()
    while len(text) < length and text[-1:] != (END,):
        text = (*text, DRAWABLE[int(np.argmax(table.after((BOS, *text))[DRAWABLE]))])
    (only,) = found(table, BeamSearch(1), Limits(length))
    assert only.tokens == text
    first = table.after((BOS,)).astype(np.float64)
    assert only.entropies[0] == pytest.approx(-(first * np.log(first)).sum(), rel=1e-9)


def by_definition(table: Table, settings: BeamSearch, limits: Limits) -> list[list[Text]]:
    """The texts of each group, by Vijayakumar et al.: scores summed anew for every candidate."""
    size, most = settings.width // settings.groups, limits.bytes or 100
    beams: list[list[Text]] = [[()] for _ in range(settings.groups)]
    done: list[list[tuple[float, Text]]] = [[] for _ in range(settings.groups)]
    for step in range(1, limits.longest + 1):
        used: list[int] = []
        for group, live in enumerate(beams):
            sums = {(*text, token): 0.0 for text in live for token in DRAWABLE}
            for text in sums:
                sums[text] = log_probability(table, text)
            ranked = sorted(sums, key=lambda x: -(sums[x] - settings.diversity * used.count(x[-1])))
            held = {text: int(LENGTHS[list(text)].sum()) for text in ranked}
            cut: list[Text] = []
            for text in list(ranked):  # the best of a hypothesis's tokens without room stands
                if held[text] > most:
                    if text[:-1] in cut:
                        ranked.remove(text)
                    cut.append(text[:-1])
            over = [
                text
                for text in ranked
                if text[-1] == END or held[text] >= most or step == limits.tokens
            ]
            beams[group] = [text for text in ranked if text not in over][:size]
            for text in ranked[:size]:
                if text in over and held[text] > most:
                    sums[text[:-1]] = log_probability(table, text[:-1])
                    done[group].append(
                        (settings.score(sums[text[:-1]], max(step - 1, 1)), text[:-1])
                    )
                elif text in over:
                    done[group].append((settings.score(sums[text], step), text))
                    used.append(text[-1])
            used += [text[-1] for text in beams[group]]
            done[group] = sorted(done[group], key=lambda pair: -pair[0])[:size]
            if len(done[group]) == size and not any(
                settings.score(sums[text], limits.longest) > done[group][-1][0]
                for text in beams[group]
            ):
                beams[group] = []
    return [[text for _, text in each] for each in done]


@hypothesis.settings(max_examples=40)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(1, 1), (3, 1), (2, 2), (4, 2), (6, 3)]),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([(5, None), (5, 4), (None, 3)]),
)
def test_the_beam_of_each_group_is_that_of_the_definition(
    seed: int,
    beams: tuple[int, int],
    diversity: float,
    exponent: float,
    most: tuple[int | None, int | None],
) -> None:
    width, groups = beams
    settings = BeamSearch(width, groups, diversity if groups > 1 else 0.0, exponent)
    table, limits = Table(seed, width), Limits(*most)
    hypotheses = found(table, settings, limits)
    assert [
        texts_of([each for each in hypotheses if each.group == group]) for group in range(groups)
    ] == by_definition(table, settings, limits)
    scores = [each.score for each in hypotheses]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("seed", range(5))
def test_groups_without_diversity_are_one_beam_each(seed: int) -> None:
    alone = found(Table(seed, 2), BeamSearch(2), Limits(6))
    hypotheses = found(Table(seed, 6), BeamSearch(6, groups=3), Limits(6))
    for group in range(3):
        own = [each for each in hypotheses if each.group == group]
        assert texts_of(own) == texts_of(alone)
        assert [each.log_probability for each in own] == [each.log_probability for each in alone]


@pytest.mark.parametrize("seed", range(5))
def test_groups_of_one_with_strong_diversity_never_choose_the_same_token_at_a_step(
    seed: int,
) -> None:
    table = Table(seed, 3)
    hypotheses = found(table, BeamSearch(3, groups=3, diversity=1e6), Limits(4))
    assert len(hypotheses) == 3
    for place in range(4):
        at = [each.tokens[place] for each in hypotheses if place < len(each.tokens)]
        assert len(set(at)) == len(at)
    for each in hypotheses:  # what is returned is the model's, without the penalty
        assert each.log_probability == pytest.approx(log_probability(table, each.tokens), rel=1e-6)


def test_prompts_side_by_side_have_the_beams_that_they_have_alone() -> None:
    prompts = [np.array([BOS, *rest], np.int64) for rest in ([], [3], [4, 0], [0, 0, 3])]
    settings, limits = BeamSearch(4, groups=2, diversity=0.7), Limits(6)
    together = search(Table(3, 16), prompts, LENGTHS, END, settings, limits)
    for prompt, hypotheses in zip(prompts, together, strict=True):
        assert search(Table(3, 4), [prompt], LENGTHS, END, settings, limits) == [hypotheses]


@pytest.mark.parametrize("seed", range(5))
def test_no_text_has_more_bytes_than_allowed_and_only_those_without_room_have_less(
    seed: int,
) -> None:
    hypotheses = found(Table(seed, 4), BeamSearch(4), Limits(bytes=7))
    assert len(hypotheses) == 4
    for each in hypotheses:
        size = LENGTHS[list(each.tokens)].sum()
        assert size <= 7
        assert each.finish_reason == "end" or size >= 7 - 2


def test_equal_scores_keep_the_order_of_the_events() -> None:
    table = Table(0, 2, sharpness=0.0)
    texts = texts_of(found(table, BeamSearch(2), Limits(2)))
    assert texts == [(END,), (0, 0)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width: 0: must be at least 1"),
        ({"width": 4, "groups": 3}, r"groups: 3: must divide the width of the beam \(4\)"),
        ({"diversity": -1.0}, "diversity: -1.0: must be a number of at least 0"),
        ({"diversity": 1.0}, "diversity: 1.0: has no effect in one group"),
        ({"length_normalization": float("nan")}, "length_normalization: nan: must be a number"),
    ],
)
def test_settings_that_cannot_be_searched_are_refused(
    settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        BeamSearch(**settings)  # type: ignore[arg-type]


def test_a_beam_without_a_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^max_tokens, max_bytes: a beam needs one of them"):
        Limits()
    with pytest.raises(ValueError, match=r"^max_bytes: 0: must be at least 1"):
        Limits(3, 0)


def test_the_examples_run() -> None:
    assert doctest.testmod(beam).failed == 0

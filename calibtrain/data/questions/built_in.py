"""Questions that are made from data which is installed: cloze, capitals, arithmetic.

Each is a function of a seed and a number of questions. The choices are always four, and none is the
beginning of another, so that a text goes on with one of them at most.
"""

import bisect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from calibtrain.data.corpora.documents import Document
from calibtrain.data.questions.question import Question
from calibtrain.errors import UserError

CHOICES = 4
LEAST_COUNT = 3
"""Times that a word of a cloze question occurs in the training text, at least."""
_WORD = re.compile(r"[^\W\d_]+")
_NEAR = 12  # words of the nearest frequency that the other choices are drawn from


def cloze(
    train: Iterable[Document],
    documents: Sequence[Document],
    *,
    count: int,
    seed: int,
    before: int = 200,
) -> list[Question]:
    """Returns questions for the next word of held-out text among four of nearly one frequency.

    A question's text is what stands before a word, cut at a space, without the space between; the
    other choices are drawn from the words whose frequency in the training text is nearest. Groups
    are quarters of the words asked for, by frequency, from `rarest` to `most frequent`.
    Each document gives equally many questions as far as it can.

    Args:
        train: the text that frequencies are counted in.
        documents: held-out text.
        count: of questions, at most.
        seed: of words and choices.
        before: bytes of the text before a word, at most.

    Raises:
        UserError: where the text has too few words.
    """
    times = Counter(word for each in train for word in _WORD.findall(each.text))
    known = sorted(
        (word for word, n in times.items() if n >= LEAST_COUNT), key=lambda w: (times[w], w)
    )
    rank = {word: place for place, word in enumerate(known)}
    if len(known) < 4 * CHOICES:
        raise UserError(
            f"--questions cloze: the training text has {len(known)} words that occur "
            f"{LEAST_COUNT} times; {4 * CHOICES} are needed"
        )
    rng = np.random.default_rng(seed)
    places: list[list[tuple[str, re.Match[str]]]] = []
    for number in rng.permutation(len(documents)):
        text = documents[number].text
        matches = [
            match
            for match in _WORD.finditer(text)
            if match.group() in rank and match.start() > 16 and text[match.start() - 1] == " "
        ]
        places.append([(text, matches[i]) for i in rng.permutation(len(matches))])
    found: list[tuple[int, Question]] = []
    deepest = max(map(len, places), default=0)
    for depth in range(deepest):
        for own in places:
            if depth >= len(own) or len(found) == count:
                continue
            text, match = own[depth]
            word = match.group()
            others = _others(word, _nearest(known, rank[word]), rng)
            if others is None:
                continue
            choices = _shuffled((word, *others), rng)
            name = f"cloze {len(found)}"
            found.append(
                (
                    rank[word],
                    Question(name, _before(text, match.start() - 1, before), choices, (word,)),
                )
            )
        if len(found) == count:
            break
    if not found:
        raise UserError("--questions cloze: the held-out text has no word to ask for")
    ranks = sorted(own for own, _ in found)
    names = ("rarest", "rare", "frequent", "most frequent")
    groups = [names[min(3, 4 * bisect.bisect_left(ranks, own) // len(ranks))] for own, _ in found]
    return [
        Question(each.place, each.text, each.choices, each.accepted, group)
        for (_, each), group in zip(found, groups, strict=True)
    ]


def capitals(*, count: int, seed: int) -> list[Question]:
    """Returns questions for the capitals of countries, among four of the same part of the world.

    The data is that of the package countryinfo. Countries are left out whose capital has their name
    (Luxembourg, Mexico City), several, or none. Groups are the parts of the world.

    Args:
        count: of questions, at most.
        seed: of their order and of the choices.

    Raises:
        UserError: where countryinfo is not installed.
    """
    try:
        import countryinfo
    except ImportError:
        raise UserError(
            "--questions capitals: countryinfo is not installed; "
            "pip install 'calibtrain[questions]', or ask something else"
        ) from None
    rows: list[tuple[str, str, str]] = []
    for country in countryinfo.all_countries():
        facts: list[Any] = [country.name(), country.capital(), country.region()]
        if not all(isinstance(each, str) and each for each in facts):
            continue
        name, capital, region = facts
        same = name.casefold() in capital.casefold() or capital.casefold() in name.casefold()
        if not same and not re.search(r"[/,(]", name + capital):
            rows.append((name, capital, region))
    rng = np.random.default_rng(seed)
    found: list[Question] = []
    for place in rng.permutation(len(rows)):
        name, capital, region = rows[place]
        near = [other for _, other, where in rows if where == region and other != capital]
        others = _others(capital, sorted(set(near)), rng)
        if others is not None and len(found) < count:
            choices = _shuffled((capital, *others), rng)
            found.append(Question(f"capitals {len(found)}", name, choices, (capital,), region))
    return found


def arithmetic(*, count: int, seed: int) -> list[Question]:
    """Returns sums, differences and products, a third each, among four near results.

    Numbers are below 100, and below 13 for products; differences are not negative. All choices have
    as many digits. Groups are the operations.

    Args:
        count: of questions.
        seed: of numbers and choices.
    """
    operations: tuple[tuple[str, str, int, Callable[[int, int], int]], ...] = (
        ("addition", "+", 100, lambda a, b: a + b),
        ("subtraction", "-", 100, lambda a, b: a - b),
        ("multiplication", "*", 13, lambda a, b: a * b),
    )
    rng = np.random.default_rng(seed)
    found: list[Question] = []
    for number in range(count):
        name, sign, limit, result = operations[number % len(operations)]
        a, b = (int(each) for each in rng.integers(1, limit, 2))
        a, b = max(a, b), min(a, b)
        right = str(result(a, b))
        near = [
            str(value)
            for value in range(max(0, int(right) - 20), int(right) + 21)
            if len(str(value)) == len(right)
        ]
        others = _others(right, near, rng)
        assert others is not None  # at least ten numbers have as many digits
        choices = _shuffled((right, *others), rng)
        found.append(Question(f"arithmetic {number}", f"{a} {sign} {b}", choices, (right,), name))
    return found


def _nearest(known: Sequence[str], place: int) -> list[str]:
    """Returns the words of the nearest frequency, on both sides."""
    low = min(max(0, place - _NEAR), max(0, len(known) - 2 * _NEAR - 1))
    return list(known[low : low + 2 * _NEAR + 1])


def _others(right: str, near: Sequence[str], rng: np.random.Generator) -> tuple[str, ...] | None:
    """Returns wrong choices, drawn from those that are near; None where there are too few."""
    found: list[str] = []
    for place in rng.permutation(len(near)):
        each = near[place]
        if not any(each.startswith(other) or other.startswith(each) for other in (right, *found)):
            found.append(each)
        if len(found) == CHOICES - 1:
            return tuple(found)
    return None


def _shuffled(choices: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(choices[place] for place in rng.permutation(len(choices)))


def _before(text: str, end: int, most: int) -> str:
    """Returns the text before a place, of at most so many bytes, from the beginning of a word."""
    data = text[:end].encode()
    if len(data) <= most:
        return text[:end]
    cut = data[-most:].decode(errors="ignore")
    return cut.partition(" ")[2] or cut

"""Questions: what a file may hold, what is said of one that is wrong, and the built-in sets."""

import builtins
import doctest
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from calibtrain.data.corpora.documents import Document
from calibtrain.data.questions import template
from calibtrain.data.questions.built_in import LEAST_COUNT, arithmetic, capitals, cloze
from calibtrain.data.questions.question import Question, digest, read_questions
from calibtrain.data.questions.template import TEMPLATES, Template
from calibtrain.errors import UserError

GOOD = {"question": "Why?", "choices": ["so", "not"], "answer": "so", "group": "a"}


def write(folder: Path, *rows: Any) -> Path:
    file = folder / "questions.jsonl"
    file.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return file


def test_the_three_ways_to_name_an_answer(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "answer": ["So", "so"]}, {**GOOD, "answer": 0}, {**GOOD, "group": 3}]
    found, notes = read_questions(write(tmp_path, *rows))
    assert [each.accepted for each in found] == [("so",)] * 4
    assert [each.right for each in found] == [0] * 4
    assert [each.group for each in found] == ["a", "a", "a", "3"]
    assert found[1].place.endswith("questions.jsonl, line 2")
    assert notes == []
    free, notes = read_questions(
        write(tmp_path, {"question": "2+2?", "answer": ["4", "four"], "choses": ["4", "5"]})
    )
    assert free == [Question(free[0].place, "2+2?", (), ("4", "four"))]
    assert "choses: not read" in notes[0]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"answer": "so"}, "line 2: has no 'question'; keys there: answer"),
        ({"question": "Why?"}, "line 2: has no 'answer'"),
        ({**GOOD, "question": " "}, 'line 2: question: " " is not allowed'),
        ({**GOOD, "question": 3}, "line 2: question: 3 is not allowed"),
        ({**GOOD, "choices": "so"}, 'line 2: choices: "so" is not a list of two'),
        ({**GOOD, "choices": ["so"]}, 'choices: ["so"] is not a list of two'),
        ({**GOOD, "choices": ["so", 1]}, "line 2: choices[1]: 1 is not allowed"),
        ({**GOOD, "choices": ["so", "so"]}, 'line 2: choices: "so" is there twice'),
        ({**GOOD, "answer": "yes"}, 'line 2: answer: "yes": no choice is among them'),
        ({**GOOD, "answer": ["so", "not"]}, "2 choices are among them; exactly one"),
        ({**GOOD, "answer": 2}, "line 2: answer: 2 is not the index of a choice, 0 to 1"),
        ({**GOOD, "answer": -1}, "line 2: answer: -1 is not the index"),
        ({**GOOD, "answer": True}, "line 2: answer: true is not allowed"),
        ({**GOOD, "answer": None}, "line 2: answer:"),
        ({**GOOD, "answer": []}, "line 2: answer: [] is not allowed"),
        ({**GOOD, "group": ["a"]}, 'line 2: group: ["a"] is not allowed'),
        ({"question": "Why?", "answer": "so", "group": "a"}, "line 2: has no 'choices', unlike"),
        ({**GOOD, "group": None}, "line 2: has no 'group', unlike"),
        ('{"question": "\\ud800", "answer": "a"}', "line 2: question: holds U+D800"),
        ("[1]", "line 2: must be a JSON object"),
        ("{", "line 2: not valid JSON"),
    ],
)
def test_a_wrong_line_is_named_with_its_key(tmp_path: Path, row: Any, told: str) -> None:
    with pytest.raises(UserError) as error:
        read_questions(write(tmp_path, GOOD, row))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_hold_no_questions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no question"):
        read_questions(write(tmp_path))
    with pytest.raises(UserError, match="is not a file of JSON lines"):
        read_questions(tmp_path / "questions.csv")
    with pytest.raises(UserError, match=r"questions\.jsonl"):
        read_questions(tmp_path / "absent" / "questions.jsonl")


def test_what_is_asked_makes_the_hash() -> None:
    one = [Question("a", "Why?", ("so", "not"), ("so",))]
    assert digest(one) == digest([Question("b", "Why?", ("so", "not"), ("so",))])
    assert len({digest(one), digest(one, "t"), digest([Question("a", "Why", (), ("so",))])}) == 3


def test_templates_part_prompt_and_candidate() -> None:
    found = Template("Q: {question}\nA: {answer}.")
    assert found.prompt("What is {answer}?") == "Q: What is {answer}?\nA:"
    assert found.candidate("?", "so") == " so."
    whole = found.prompt("x") + found.candidate("x", "y")
    assert whole == "Q: x\nA: y."
    for text in (
        "{question}",
        "{answer}",
        "{answer} {question}",
        "{question} {question} {answer}",
    ):
        with pytest.raises(UserError, match=r"^--template: "):
            Template(text)
    assert all(Template(text) for own in TEMPLATES.values() for text in own)
    assert not doctest.testmod(template).failed


def check(found: list[Question], count: int) -> None:
    """What all built-in sets have in common."""
    assert len(found) == count
    for each in found:
        assert len(set(each.choices)) == 4
        assert each.accepted[0] in each.choices
        assert not [
            (a, b) for a in each.choices for b in each.choices if a != b and b.startswith(a)
        ]
    places = Counter(each.right for each in found)
    assert set(places) == {0, 1, 2, 3}


def test_arithmetic_is_right() -> None:
    found = arithmetic(count=300, seed=1)
    check(found, 300)
    for each in found:
        a, sign, b = each.text.split()
        assert sign in "+-*"
        assert str(eval(f"{int(a)} {sign} {int(b)}")) == each.accepted[0]
    assert Counter(each.group for each in found) == dict.fromkeys(
        ("addition", "subtraction", "multiplication"), 100
    )
    assert found == arithmetic(count=300, seed=1)
    assert found != arithmetic(count=300, seed=2)


def test_capitals_are_those_of_countries(monkeypatch: pytest.MonkeyPatch) -> None:
    found = capitals(count=1000, seed=0)
    assert len(found) > 150
    check(found, len(found))
    known = {each.text: each.accepted[0] for each in found}
    for country, capital in (("France", "Paris"), ("Japan", "Tokyo"), ("Kenya", "Nairobi")):
        assert known[country] == capital
    assert "Luxembourg" not in known
    there = builtins.__import__

    def absent(name: str, *more: Any) -> Any:
        if name == "countryinfo":
            raise ImportError(name)
        return there(name, *more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UserError, match=r"countryinfo is not installed; pip install 'calibtrain"):
        capitals(count=3, seed=0)


def documents(count: int) -> list[Document]:
    """Texts of words whose frequencies differ widely."""
    import numpy as np

    rng = np.random.default_rng(count)
    names = [a + b + c for a in "bdgk" for b in "aeiou" for c in "lmnr"]
    p = 1 / np.arange(1, len(names) + 1)
    return [Document(str(i), " ".join(rng.choice(names, 120, p=p / p.sum()))) for i in range(count)]


def test_a_cloze_question_is_a_text_that_goes_on_among_words_of_its_frequency() -> None:
    train, held_out = documents(40), documents(9)
    found = cloze(train, held_out, count=60, seed=0, before=80)
    check(found, 60)
    times = Counter(word for each in train for word in each.text.split())
    ranks = {
        word: place for place, (word, _) in enumerate(sorted(times.items(), key=lambda x: x[1]))
    }
    whole = " | ".join(each.text for each in held_out)
    for each in found:
        assert f"{each.text} {each.accepted[0]}" in whole
        assert len(each.text.encode()) <= 80
        assert all(times[choice] >= LEAST_COUNT for choice in each.choices)
        near = [abs(ranks[choice] - ranks[each.accepted[0]]) for choice in each.choices]
        assert max(near) <= 26
    by_group = {name: [] for name in ("rarest", "rare", "frequent", "most frequent")}
    for each in found:
        by_group[each.group].append(times[each.accepted[0]])
    means = [sum(own) / len(own) for own in by_group.values()]
    assert means == sorted(means)
    assert found == cloze(train, held_out, count=60, seed=0, before=80)
    with pytest.raises(UserError, match=r"0 words that occur 3 times; 16 are needed"):
        cloze([Document("a", "one word")], held_out, count=3, seed=0)
    with pytest.raises(UserError, match="no word to ask for"):
        cloze(train, [Document("a", "bal")], count=3, seed=0)


def test_text_before_a_word_is_cut_at_whole_characters() -> None:
    word = "é" * 30
    texts = [Document("a", f"{word} {word} {word} bal bel")]
    found = cloze(documents(40), texts, count=5, seed=0, before=63)
    assert all(each.text.startswith(("é", "bal")) for each in found)

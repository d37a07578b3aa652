"""Corpora of any size: a tokenizer's sample, phases, shards and bounded memory."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from calibtrain.cli.terminal import describe as describe_event
from calibtrain.cli.terminal import make_view
from calibtrain.config import Config, CorpusConfig, TokenizerConfig, config_hash, validate
from calibtrain.config.overridden import refuse_overridden
from calibtrain.data.batches.store import open_store
from calibtrain.data.corpora import builder
from calibtrain.data.corpora.corpus import Corpus, Document, open_corpus
from calibtrain.data.tokenizers import tokenizer_choice, trainer_process, training_sample
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.data.tokenizers.tokenizer_choice import obtain_tokenizer
from calibtrain.data.tokenizers.tokenizer_facts import describe
from calibtrain.data.tokenizers.training_sample import draw_texts, pieces
from calibtrain.errors import UserError
from calibtrain.library.progress import Progress, shown
from calibtrain.process import phases
from calibtrain.training.begin import BegunRun, Member, begun

_DRAW = random.Random(0)
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
WORDS = ["".join(_DRAW.choices(SYLLABLES, k=_DRAW.randint(1, 4))) for _ in range(300)]


def documents_of(count: int, seed: int = 0) -> list[Document]:
    draw = random.Random(seed)
    texts = (" ".join(draw.choices(WORDS, k=draw.randint(20, 60))) for _ in range(count))
    return [Document(str(number), f"{text}.\n") for number, text in enumerate(texts)]


def drawn(documents: list[Document], wanted: int, seed: int = 0) -> list[str]:
    size = sum(len(document.text.encode()) for document in documents)
    return list(draw_texts(documents, {"bytes": wanted, "seed": seed, "of_bytes": size}))


def corpus_of(documents: list[Document], folder: Path) -> Corpus:
    """A corpus of a JSONL file with these documents."""
    path = folder / "a.jsonl"
    folder.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": d.text}) + "\n" for d in documents))
    return open_corpus(CorpusConfig(name="files", paths=(str(path),)), folder / "cache")


def sampled(kind: str = "bpe", wanted: int | None = 5_000, **others: Any) -> TokenizerConfig:
    tree = {"kind": kind, "vocab_size": 290, "sample_bytes": wanted, **others}
    return validate(TokenizerConfig, tree)


# --- the sample ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(1_000, 12_000), st.integers(0, 2**32 - 1), st.randoms(use_true_random=False))
def test_a_sample_depends_on_seed_and_texts_and_not_on_order_or_names(
    wanted: int, seed: int, shuffle: random.Random
) -> None:
    documents = documents_of(80)
    found = drawn(documents, wanted, seed)
    longest = max(len(document.text) for document in documents)
    assert abs(len("".join(found)) - wanted) <= longest
    shuffled = shuffle.sample(documents, len(documents))
    assert drawn([Document(f"x{d.id}", d.text) for d in shuffled], wanted, seed) == found
    kept = [document for document in documents if document.text in found or shuffle.random() < 0.5]
    again = drawn(kept, wanted, seed)  # what was not drawn plays no part, except the next in order
    both = min(len(again), len(found))
    assert again[:both] == found[:both]
    assert abs(len(again) - len(found)) <= 1


def test_another_seed_draws_another_sample() -> None:
    samples = {tuple(drawn(documents_of(80), 3_000, seed)) for seed in range(5)}
    assert len(samples) == 5


def test_long_documents_are_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_sample, "PIECE", 1_000)
    long = "".join(document.text for document in documents_of(200))
    for text in (long, long.replace("\n", " "), "", "\n" * 5_000):
        edges = list(pieces(text))
        assert "".join(text[start:stop] for start, stop in edges) == text
        assert all(stop - start <= 1_000 for start, stop in edges)
    found = drawn([Document("1", long), Document("2", long[::-1])], 7_000)
    assert 6_000 <= len("".join(found)) <= 8_000
    assert all(text in long or text[::-1] in long for text in found)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_the_same_documents_in_another_order_train_the_same_bytes(
    kind: str, tmp_path: Path
) -> None:
    documents = documents_of(80)
    one = corpus_of(documents, tmp_path / "one")
    other = corpus_of(documents[::-1], tmp_path / "other")
    assert one.provenance.content_hash != other.provenance.content_hash
    first, second = (
        obtain_tokenizer(sampled(kind), corpus, tmp_path / "cache") for corpus in (one, other)
    )
    assert first.model == second.model
    assert first.hash == second.hash


def test_the_manifest_says_what_was_drawn(tmp_path: Path) -> None:
    corpus = corpus_of(documents_of(80), tmp_path)
    size = corpus.provenance.splits["train"]
    tokenizer = obtain_tokenizer(sampled(wanted=5_000, sample_seed=3), corpus, tmp_path / "cache")
    manifest = tokenizer.manifest
    assert manifest.settings["sample"] == {
        "bytes": 5_000,
        "seed": 3,
        "of_bytes": size.bytes,
        "of_documents": size.documents,
    }
    assert 4_500 <= manifest.training_bytes <= 5_500
    assert 0 < manifest.training_documents < size.documents
    assert describe(tokenizer)["training_share"] == manifest.training_bytes / size.bytes
    again = obtain_tokenizer(sampled(wanted=5_000, sample_seed=3), corpus, tmp_path / "cache")
    assert again.manifest == manifest
    others = [sampled(wanted=6_000, sample_seed=3), sampled(wanted=5_000), sampled(wanted=None)]
    hashes = {obtain_tokenizer(each, corpus, tmp_path / "cache").hash for each in others}
    assert len(hashes | {manifest.model_hash, tokenizer.hash}) == 5


@pytest.mark.parametrize("kind", ["unigram", "bpe", "byte"])
def test_a_text_no_larger_than_the_sample_is_used_whole(kind: str, tmp_path: Path) -> None:
    corpus = corpus_of(documents_of(40), tmp_path)
    own = {} if kind == "byte" else {"vocab_size": 290}
    size = corpus.provenance.splits["train"].bytes
    default = validate(TokenizerConfig, {"kind": kind, **own})
    configs = [default]
    if kind != "byte":
        configs += [sampled(kind, None), sampled(kind, size)]
    found = [obtain_tokenizer(each, corpus, tmp_path / "cache") for each in configs]
    assert all(each.manifest == found[0].manifest for each in found)
    assert "sample" not in found[0].manifest.settings
    assert found[0].manifest.training_bytes == size
    assert len(list((tmp_path / "cache" / "tokenizers").glob(f"{kind}-*"))) == 1


def test_hashes_of_runs_count_the_sample_only_where_it_is_not_the_default() -> None:
    hashes = [
        config_hash(tiny(tokenizer={"kind": "bpe", "vocab_size": 290, **sample}))
        for sample in (
            {},
            {"sample_bytes": 40_000_000},
            {"sample_bytes": 1_000},
            {"sample_seed": 1},
        )
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sample_bytes": 10}, r"^tokenizer\.sample_bytes: .*10.* 1000"),
        ({"sample_bytes": "lots"}, r"^tokenizer\.sample_bytes: .*lots"),
        ({"sample_seed": -1}, r"^tokenizer\.sample_seed: .*-1"),
        ({"sample_byte": 1_000}, r"^tokenizer\.sample_byte: unknown key; did you mean"),
    ],
)
def test_mistakes_are_one_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        tiny(tokenizer={"kind": "bpe", "vocab_size": 290, **given})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        (
            {"kind": "byte", "vocab_size": 258, "sample_bytes": 1_000},
            r"tokenizer\.sample_bytes: 1000 has no effect",
        ),
        (
            {"kind": "bpe", "sample_bytes": None, "sample_seed": 2},
            r"tokenizer\.sample_seed: 2 has no effect with tokenizer\.sample_bytes: null",
        ),
    ],
)
def test_settings_without_effect_are_refused(tokenizer: dict[str, Any], words: str) -> None:
    config: Config = tiny(tokenizer=tokenizer)
    with pytest.raises(UserError, match=words):
        refuse_overridden(config, lambda path: "here")


def test_a_seed_that_draws_nothing_is_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = corpus_of(documents_of(40), tmp_path)
    obtain_tokenizer(sampled(wanted=10**6, sample_seed=4), corpus, tmp_path / "cache")
    (line,) = caplog.messages
    assert line.startswith("note: tokenizer.sample_seed: 4 has no effect")


def test_the_folder_of_a_sampled_tokenizer_agrees_with_what_is_said_of_it(tmp_path: Path) -> None:
    corpus = corpus_of(documents_of(80), tmp_path)
    made = obtain_tokenizer(sampled(wanted=5_000), corpus, tmp_path / "cache")
    made.save(tmp_path / "mine")
    path = str(tmp_path / "mine")
    right = sampled(wanted=5_000, path=path)
    assert obtain_tokenizer(right, corpus, tmp_path / "cache").hash == made.hash
    with pytest.raises(UserError, match=r"^tokenizer\.sample_bytes: 6000 is not that of the"):
        obtain_tokenizer(sampled(wanted=6_000, path=path), corpus, tmp_path / "cache")


def test_a_document_outside_the_sample_is_checked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = documents_of(80)
    corpus = corpus_of(documents, tmp_path)
    train = list(corpus.documents("train"))
    inside = drawn(train, 5_000)
    victim = next(document for document in train if document.text not in inside)
    decode = Tokenizer.decode

    def losing(self: Tokenizer, ids: Any) -> bytes:
        return decode(self, ids).replace(victim.text.encode(), b"lost")

    monkeypatch.setattr(Tokenizer, "decode", losing)
    with pytest.raises(UserError, match=rf"^document '{victim.id}': byte 0: "):
        obtain_tokenizer(sampled(wanted=5_000), corpus, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache/tokenizers").iterdir() if path.is_dir()]


def test_a_run_of_an_earlier_version_goes_on_with_the_tokenizer_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(
        corpus={"name": "markov", "markov": {"words": 24, "successors": 4, "bytes": 20_000}},
        tokenizer={"kind": "bpe", "vocab_size": 290, "sample_bytes": 2_000},
    )

    def begin(folder: str, cache: Path) -> BegunRun:
        with begun([Member(config, tmp_path / folder)], cache=cache) as runs:
            return runs[0]

    with monkeypatch.context() as patch:  # earlier versions trained on all text
        patch.setattr(tokenizer_choice, "sample_settings", lambda *_, **__: {})
        old = begin("old", tmp_path / "cache")
    assert "sample" not in old.plan.tokenizer.manifest.settings
    for cache in ("cache", "another"):
        again = begin("old", tmp_path / cache)
        assert again.plan.tokenizer.hash == old.plan.tokenizer.hash
        assert again.plan.identity == old.plan.identity
    new = begin("new", tmp_path / "cache")
    assert new.plan.tokenizer.manifest.settings["sample"]["bytes"] == 2_000
    assert begin("new", tmp_path / "cache").plan.identity == new.plan.identity


# --- phases --------------------------------------------------------------------------------------


def test_every_phase_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "EVERY", 0.0)
    told: list[Mapping[str, Any]] = []
    with phases.listening(told.append):
        corpus = corpus_of(documents_of(80), tmp_path)
        tokenizer = obtain_tokenizer(sampled("unigram", 5_000), corpus, tmp_path / "cache")
        open_store(corpus, "train", tokenizer, tmp_path / "cache")
    runs = [(what, list(events)) for what, events in groupby(told, lambda event: event["what"])]
    assert [what for what, _ in runs] == [
        "reading the files' checksums",
        "reading the corpus",
        "comparing the files with their checksums",
        "writing the corpus",
        "reading the corpus back",
        "drawing the tokenizer's sample",
        "reading the tokenizer's training text",
        "training the tokenizer",
        "checking that the tokenizer is lossless",
        "tokenising, train split",
    ]
    for what, events in runs:
        last = events[-1]
        assert [event["done"] for event in events] == sorted(event["done"] for event in events)
        assert last["done"] == last["total"], what
        assert last["seconds_left"] == 0
    told.clear()
    open_store(corpus, "test", tokenizer, tmp_path / "cache")  # nobody listens
    assert told == []


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_what_is_left_of_training_is_known_before_its_end(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(phases, "EVERY", 0.0)
    corpus = corpus_of(documents_of(300), tmp_path)
    told: list[Mapping[str, Any]] = []
    with phases.listening(told.append):
        obtain_tokenizer(sampled(kind, 20_000, vocab_size=420), corpus, tmp_path / "cache")
    training = [event for event in told if event["what"] == "training the tokenizer"]
    known = [(event["done"], event["total"]) for event in training if event["total"]]
    assert known
    assert known[-1][0] >= 0.7 * known[-1][1]


def test_phases_are_shown_wherever_progress_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(phases, "EVERY", 0.0)
    with make_view("plain"):
        phases.Phase("reading the corpus", 4_000_000).at(1_000_000)
    assert re.fullmatch(
        r"reading the corpus: 1\.0 of 4\.0 MB, \d s left\n", capsys.readouterr().err
    )
    with make_view("json"):
        phases.Phase("training", unit="rounds").at(2)
    event = json.loads(capsys.readouterr().err)
    assert (event["what"], event["done"], event["total"]) == ("training", 2, None)
    assert describe_event({**event, "seconds": 12.3}) == "training: 12 s so far"
    assert describe_event({**event, "total": 9, "seconds_left": 3.2}) == (
        "training: 2 of 9 rounds, 3 s left"
    )
    told: list[Progress] = []
    with shown(told.append, "training"):
        phases.Phase("reading", 10).at(5)
    assert [(each.event, each.step, each.steps) for each in told] == [("preparing", 5, 10)]
    phases.Phase("reading", 10).at(5)
    assert len(told) == 1


# --- the trainer's process -----------------------------------------------------------------------


OPTIONS = {"model_type": "bpe", "vocab_size": 300}


def test_a_trainer_that_is_killed_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    dying = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    monkeypatch.setattr(trainer_process, "COMMAND", dying)
    with pytest.raises(trainer_process.TrainerError, match=r"SIGKILL.*tokenizer\.sample_bytes"):
        trainer_process.train(OPTIONS, ["a line"] * 100_000, 700_000)
    monkeypatch.setattr(trainer_process, "COMMAND", [sys.executable, "-c", "import nothing_here"])
    with pytest.raises(trainer_process.TrainerError, match=r"^ModuleNotFoundError: .*$"):
        trainer_process.train(OPTIONS, ["a line"], 6)
    monkeypatch.setattr(trainer_process, "COMMAND", ["/nothing/here"])
    with pytest.raises(trainer_process.TrainerError, match="cannot be started: No such file"):
        trainer_process.train(OPTIONS, ["a line"], 6)


def test_an_interrupt_ends_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def noted(*arguments: Any, **options: Any) -> Any:
        started.append(real(*arguments, **options))
        return started[-1]

    def lines() -> Iterator[str]:
        yield "a line"
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer_process.subprocess, "Popen", noted)
    with pytest.raises(KeyboardInterrupt):
        trainer_process.train(OPTIONS, lines(), 6)
    assert started[0].returncode is not None


# --- preparing -----------------------------------------------------------------------------------


def test_a_corpus_in_several_shards_keeps_its_order_and_needs_no_tensorflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorflow_datasets.core import shuffle

    documents = [*documents_of(50), Document("long", "long " * 2_000), *documents_of(50, seed=1)]
    whole = corpus_of(documents, tmp_path / "whole")
    monkeypatch.setattr(builder, "SHARD", 2_000)
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 100)
    cut = corpus_of(documents, tmp_path / "cut")
    assert len(list((tmp_path / "cut/cache/corpora").glob("*/records/*train*"))) > 5
    assert cut.provenance.content_hash == whole.provenance.content_hash
    for split in ("train", "validation", "test"):
        assert list(cut.documents(split)) == list(whole.documents(split))


PREPARE = """
import resource, sys
from pathlib import Path
from calibtrain.config import CorpusConfig, TokenizerConfig
from calibtrain.data.batches.store import open_store
from calibtrain.data.corpora import builder
from calibtrain.data.corpora.corpus import open_corpus
from calibtrain.data.tokenizers.tokenizer_choice import obtain_tokenizer
builder.SHARD = 2**21
cache = Path(sys.argv[2])
corpus = open_corpus(CorpusConfig(name="files", paths=(sys.argv[1],)), cache)
config = TokenizerConfig(kind="unigram", vocab_size=400, sample_bytes=int(sys.argv[3]))
tokenizer = obtain_tokenizer(config, corpus, cache)
store = open_store(corpus, "train", tokenizer, cache)
own, children = (resource.getrusage(who).ru_maxrss for who in (
    resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(tokenizer.hash, store.bytes, own * 1024, children * 1024)
"""


def write_text(path: Path, size: int) -> None:
    """Documents of about 5 kB in one file, no two of them equal."""
    with path.open("w") as file:
        for number in range(size // 5_000):
            text = "".join(d.text for d in documents_of(20, seed=number))
            file.write(json.dumps({"text": f"{number} {text}"}) + "\n")


@pytest.mark.long
def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    peaks = []
    for size in (10_000_000, 50_000_000):
        path = tmp_path / f"{size}.jsonl"
        write_text(path, size)
        command = [sys.executable, "-c", PREPARE, str(path), str(tmp_path / str(size)), "1000000"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        _, stored, own, children = done.stdout.split()
        assert int(stored) > 0.85 * size
        peaks.append((int(own), int(children)))
    (small, small_trainer), (large, large_trainer) = peaks
    assert large - small < 12_000_000  # the text grew by 40 MB
    assert large_trainer - small_trainer < 12_000_000


@pytest.mark.long
def test_a_preparation_that_is_killed_while_training_begins_cleanly(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    write_text(path, 6_000_000)
    command = [sys.executable, "-c", PREPARE, str(path), str(tmp_path / "cache"), "5000000"]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE)
    children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children")
    if not children.parent.exists():
        killed.kill()
        pytest.skip("needs /proc")
    deadline = time.monotonic() + 240
    while not (trainers := children.read_text().split()):
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    while os.path.exists(f"/proc/{trainers[0]}") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{trainers[0]}")
    hashes = []
    for cache in ("cache", "fresh"):
        command[-2] = str(tmp_path / cache)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        hashes.append(done.stdout.split()[0])
    assert hashes[0] == hashes[1]
    left = [path for path in (tmp_path / "cache" / "tokenizers").iterdir() if path.is_dir()]
    assert len(left) == 1


def test_the_trainer_does_not_import_from_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queue.py").write_text("raise RuntimeError('the user has a file of that name')")
    monkeypatch.chdir(tmp_path)
    text = ["a man went out to sow his seed", "and some fell by the way side"] * 20
    options = {"vocab_size": 40, "model_type": "bpe", "hard_vocab_limit": False}
    assert trainer_process.train(options, text, sum(map(len, text)))

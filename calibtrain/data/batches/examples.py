"""Examples for fine-tuning: prompts with answers, read from JSON lines, tokenised and batched.

A sequence is document start, prompt, answer, document end; only the answer and its end are
predicted. Each sequence has its own row. Prompt and answer are tokenised separately, so that the
tokens of neither depend on the other.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from calibtrain.data.batches.stream import Batch, document_order
from calibtrain.data.batches.windows import WindowBatch
from calibtrain.data.corpora.splits import SPLITS, assign_splits, text_key
from calibtrain.data.corpora.text_files import (
    check_unchanged,
    digest_files,
    digest_set,
    file_names,
    find_files,
    json_lines,
)
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.errors import UserError

FIELDS = {"sft": ("prompt", "response"), "dpo": ("prompt", "chosen", "rejected")}
"""The fields of an example (prompt and answers) by objective."""


@dataclasses.dataclass(frozen=True)
class Example:
    """A prompt and its answers: one response, or the chosen and the rejected answer.

    Attributes:
        name: file and line.
        prompt: the text before the answer, of weight 0.
        answers: one or two texts.
    """

    name: str
    prompt: str
    answers: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer, tokenised, with its prompt before it.

    Attributes:
        ids: document start, prompt, answer, document end.
        scored_from: the first slot that predicts the answer.
        bytes: bytes of the answer's text.
    """

    ids: Int[np.ndarray, " n"]
    scored_from: int
    bytes: int


def read_examples(patterns: Sequence[str], fields: Sequence[str]) -> tuple[list[Example], str]:
    """Returns the examples of JSON-lines files, in order, and a hash of the files.

    Args:
        patterns: paths and globs.
        fields: names of the fields: the prompt's, then the answers'.

    Raises:
        UserError: for a file that cannot be read, or a line that is not an example; it is named.
    """
    paths = find_files(patterns)
    for path in paths:
        if not path.name.lower().endswith((".jsonl", ".jsonl.gz")):
            raise UserError(f"{path}: examples are JSON lines; allowed: .jsonl, .jsonl.gz")
    names, digests = file_names(paths), digest_files(paths)
    found = [
        example
        for path, name in zip(paths, names, strict=True)
        for example in _read(path, name, fields)
    ]
    if not found:
        raise UserError(f"finetune.paths: {', '.join(patterns)} hold no example")
    check_unchanged(paths, digests)
    return found, digest_set(names, digests)


def _read(path: Path, name: str, fields: Sequence[str]) -> Iterator[Example]:
    for number, place, record in json_lines(path):
        prompt, *answers = _texts(record, fields, place)
        yield Example(f"{name}:{number}", prompt, tuple(answers))


def _texts(record: Mapping[str, Any], fields: Sequence[str], place: str) -> list[str]:
    for field in fields:
        if field not in record:
            there = ", ".join(record) or "none"
            raise UserError(
                f"{place}: has no field {field!r}; fields there: {there}; wanted: "
                f"{', '.join(fields)} (finetune.objective says which)"
            )
        if not isinstance(record[field], str):
            raise UserError(f"{place}: field {field!r} must be a string")
        if field != "prompt" and not record[field]:
            raise UserError(f"{place}: field {field!r} is empty; an answer has some text")
        try:
            record[field].encode()
        except UnicodeEncodeError as error:  # JSON can spell a lone surrogate
            half = f"U+{ord(error.object[error.start]):04X}"
            raise UserError(
                f"{place}: field {field!r} holds {half} at character {error.start}, half of a "
                "surrogate pair, which is not text"
            ) from None
    return [record[field] for field in fields]


def split_examples(
    examples: Sequence[Example], validation_fraction: float
) -> tuple[list[Example], list[Example]]:
    """Returns the examples to train on and those held out; a prompt is on one side only.

    The split goes by a hash of the prompt.

    Raises:
        UserError: where there are too few prompts.
    """
    keys = np.array([text_key(example.prompt) for example in examples], np.uint64)
    sides = assign_splits(keys, {"validation": validation_fraction})
    if sides is None:
        raise UserError("finetune.paths: hold one prompt only; held-out examples need another")
    training, held_out = SPLITS.index("train"), SPLITS.index("validation")
    return (
        [example for example, side in zip(examples, sides, strict=True) if side == training],
        [example for example, side in zip(examples, sides, strict=True) if side == held_out],
    )


def tokenise(
    examples: Sequence[Example], tokenizer: Tokenizer, context: int | None, longest: int
) -> tuple[list[Answer], int, int]:
    """Returns every answer after its prompt, in order; the context; and how many prompts were cut.

    Args:
        examples: examples with the same number of answers each.
        tokenizer: the model's tokenizer.
        context: slots per sequence; None means as many as the longest sequence needs.
        longest: upper bound of the context, in slots.

    Raises:
        UserError: for an answer that does not fit even without its prompt.
    """
    prompts = tokenizer.encode_batch([example.prompt for example in examples])
    answers = tokenizer.encode_batch([text for e in examples for text in e.answers])
    each = len(examples[0].answers)
    needed = max(len(prompts[i // each]) + len(answer) + 1 for i, answer in enumerate(answers))
    if context is None:
        context = min(longest, max(8, -(-needed // 8) * 8))
    elif context > longest:
        raise UserError(f"finetune.context: {context} is more than the model's context, {longest}")
    sequences, cut = [], 0
    for index, answer in enumerate(answers):
        prompt = prompts[index // each]
        room = context - len(answer) - 1
        if room < 0:
            raise UserError(
                f"{examples[index // each].name}: an answer of {len(answer)} tokens does not fit "
                f"into a context of {context} (finetune.context, at most {longest})"
            )
        if len(prompt) > room:
            prompt, cut = prompt[len(prompt) - room :], cut + 1
        ids = np.concatenate([[tokenizer.bos_id], prompt, answer, [tokenizer.eos_id]])
        raw = int(tokenizer.byte_lengths[answer].sum())
        sequences.append(Answer(ids.astype(np.int32), len(prompt), raw))
    return sequences, context, cut


def lay_out(sequences: Sequence[Answer], context: int) -> Batch:
    """Returns a batch with one row per sequence."""
    shape = (len(sequences), context)
    tokens, labels = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    segments, weights = np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
    for row, sequence in enumerate(sequences):
        slots = len(sequence.ids) - 1
        tokens[row, :slots], labels[row, :slots] = sequence.ids[:-1], sequence.ids[1:]
        segments[row, :slots] = 0
        weights[row, sequence.scored_from : slots] = 1.0
    return Batch(tokens, labels, segments, weights)


class ExampleBatches:
    """Random access by step to a batch of examples, in an order that depends on (seed, epoch)."""

    def __init__(
        self,
        sequences: Sequence[Answer],
        *,
        rows: int,
        context: int,
        seed: int,
        answers: int,
        reference: Float[np.ndarray, " sequences"] | None = None,
        part: slice | None = None,
    ):
        """Args:
        sequences: tokenised answers; those of one example follow each other.
        rows: rows per batch, a multiple of `answers`.
        context: slots per row.
        seed: seed of the order.
        answers: answers per example.
        reference: log-probability of each answer under the reference, in nats.
        part: the rows read here; None means all.
        """
        self.sequences, self.answers, self.reference = sequences, answers, reference
        self.rows, self.context, self.seed = rows, context, seed
        self.part = part or slice(0, rows)
        self.slots_per_step = rows * context
        self._order = functools.lru_cache(maxsize=4)(
            lambda epoch: document_order(len(sequences) // answers, seed, epoch)
        )

    @property
    def examples(self) -> int:
        """The number of examples."""
        return len(self.sequences) // self.answers

    @property
    def steps_per_epoch(self) -> float:
        """The number of steps of one pass."""
        return self.examples * self.answers / self.rows

    def of_rows(self, part: slice) -> "ExampleBatches":
        """Returns the batches reduced to some of their rows, as one process reads them."""
        return ExampleBatches(
            self.sequences,
            rows=self.rows,
            context=self.context,
            seed=self.seed,
            answers=self.answers,
            reference=self.reference,
            part=part,
        )

    def rows_of(self, step: int) -> list[int]:
        """Returns the indices of the sequences that a step reads, one per row."""
        first = int(step) * self.rows // self.answers
        chosen: list[int] = []
        for place in range(first, first + self.rows // self.answers):
            epoch, index = divmod(place, self.examples)
            example = int(self._order(epoch)[index])
            chosen += range(example * self.answers, (example + 1) * self.answers)
        return chosen

    def progress(self, step: int) -> tuple[int, int]:
        """Returns the tokens and bytes of answers that are trained on after `step` steps."""
        scored, raw = self._seen_before
        epochs, rest = divmod(int(step) * self.rows // self.answers, self.examples)
        order = self._order(epochs)[:rest]
        tokens = epochs * int(scored.sum()) + int(scored[order].sum())
        return tokens, epochs * int(raw.sum()) + int(raw[order].sum())

    @functools.cached_property
    def _seen_before(self) -> tuple[np.ndarray, np.ndarray]:
        shape = (self.examples, self.answers)
        scored = [len(sequence.ids) - 1 - sequence.scored_from for sequence in self.sequences]
        raw = [sequence.bytes for sequence in self.sequences]
        return np.reshape(scored, shape).sum(1), np.reshape(raw, shape).sum(1)

    def __getitem__(self, step: int) -> Batch:
        chosen = self.rows_of(step)[self.part]
        batch = lay_out([self.sequences[index] for index in chosen], self.context)
        if self.reference is None:
            return batch
        return batch._replace(reference=self.reference[chosen].astype(np.float32))

    def iterate(self, start: int) -> Any:
        """Returns an endless iterator over the batches from step `start` on."""
        return map(self.__getitem__, itertools.count(start))


class AnswerWindows:
    """Held-out answers as an evaluation reads them: each once, after its prompt.

    Attributes:
        documents: the numbers of all answers.
        document_bytes: bytes of their texts.
        document_ids: their names.
    """

    def __init__(
        self,
        answers: Sequence[Answer],
        names: Sequence[str],
        byte_lengths: Int[np.ndarray, " vocab"],
        *,
        rows: int,
        context: int,
    ):
        self._answers, self._byte_lengths = answers, byte_lengths
        self.rows, self.context = rows, context
        self.documents = np.arange(len(answers))
        self.document_bytes = np.array([answer.bytes for answer in answers], np.int64)
        self.document_ids = tuple(names)

    def __len__(self) -> int:
        return -(-len(self._answers) // self.rows)

    def __getitem__(self, index: int) -> WindowBatch:
        own = self._answers[index * self.rows : (index + 1) * self.rows]
        batch = pad_rows(lay_out(own, self.context), self.rows)
        documents = np.full((self.rows, self.context), -1, np.int32)
        before = np.zeros((self.rows, self.context), np.int32)
        for row, answer in enumerate(own):
            slots = len(answer.ids) - 1
            documents[row, :slots] = index * self.rows + row
            read = np.cumsum(self._byte_lengths[answer.ids[:slots]])
            before[row, :slots] = np.maximum(0, read - read[answer.scored_from])
        return WindowBatch(*batch[:4], documents, before)


def pad_rows(batch: Batch, rows: int) -> Batch:
    """Returns a batch with rows of weight 0 appended, `rows` rows in all."""
    missing = rows - len(batch.tokens)
    fill = (0, 0, -1, 0)
    padded = (
        np.pad(x, [(0, missing), (0, 0)], constant_values=value)
        for x, value in zip(batch[:4], fill, strict=True)
    )
    return Batch(*padded)

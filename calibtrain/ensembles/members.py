"""Members of an ensemble: models with a name each, and how they begin to read a prompt."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from calibtrain.data.tokenizers.tokenizer import utf8_bytes
from calibtrain.ensembles.proposals import Spelling
from calibtrain.ensembles.text_reader import last_distributions
from calibtrain.ensembles.texts import unique_names
from calibtrain.errors import UserError
from calibtrain.generation.beam_texts import states_for
from calibtrain.generation.byte_beam import STAY, STOP
from calibtrain.generation.byte_trie import ByteTrie
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.next_byte import Beam, NextByte
from calibtrain.generation.states import TokenStates
from calibtrain.runs.loading import opened
from calibtrain.storage.compiled import use_compiled_programs

WARM_UP = 32
"""Bytes at the end of a prompt that are read byte by byte: where a token ends depends on the text
to come, and 32 bytes are two of the longest pieces that SentencePiece makes by default."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A model of an ensemble, with its decoding states, whose programs are compiled once.

    What it returns is one object for all requests of a kind: each begins anew with `start`, and two
    of a kind cannot be under way at once.

    Attributes:
        name: how it was named: the folder of its run.
        model: what it decodes with.
    """

    name: str
    model: LanguageModel
    _kept: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)

    def next_byte(self, lanes: int, beam: Beam | None = None, texts: int | None = None) -> NextByte:
        """Returns the model as a distribution of the next byte of some texts, side by side.

        Args:
            lanes: texts side by side.
            beam: the tokenisations that are followed; None means `Beam()`.
            texts: how many of the lanes begin a text, as `NextByte.of` takes it.
        """
        model, key = self.model, ("next byte", lanes, beam, texts)
        if key not in self._kept:
            self._kept[key] = NextByte.of(
                model.network,
                model.params,
                self.trie,
                lanes=lanes,
                context=model.context,
                texts=texts,
                follow=beam,
            )
        return self._kept[key]

    def states(self, rows: int) -> TokenStates:
        """Returns decoding states of one text, with probabilities of the whole vocabulary."""
        key = "states", rows
        if key not in self._kept:
            self._kept[key] = states_for(self.model, 1, rows)
        return self._kept[key]

    def last_distributions(
        self, ids: Int[np.ndarray, " tokens"], count: int
    ) -> Float[np.ndarray, "count vocab"]:
        """Returns next-token log-probabilities after the last `count` tokens, by one pass."""
        return last_distributions(self.model.network, self.model.params, ids, count)

    @property
    def trie(self) -> ByteTrie:
        """The byte trie of its vocabulary."""
        if "trie" not in self._kept:
            tokenizer = self.model.tokenizer
            self._kept["trie"] = ByteTrie.of(tokenizer.piece_bytes, tokenizer.eos_id)
        return self._kept["trie"]

    @property
    def spelling(self) -> Spelling:
        """Its vocabulary, as agreement reads it."""
        if "spelling" not in self._kept:
            tokenizer = self.model.tokenizer
            self._kept["spelling"] = Spelling(tokenizer.piece_bytes, tokenizer.eos_id)
        return self._kept["spelling"]


@contextmanager
def opened_members(
    paths: Sequence[Path], say: Callable[[str], None] = lambda text: None
) -> Iterator[list[Member]]:
    """Holds runs for this process, and gives their latest checkpoints as members.

    Raises:
        UserError: where no run is named, and for one that cannot be opened.
    """
    if not paths:
        raise UserError("runs: none is named; an ensemble has at least one member")
    with ExitStack() as stack:
        members = []
        for name, path in zip(unique_names(list(map(str, paths))), paths, strict=True):
            saved = stack.enter_context(opened(path, say=say))
            use_compiled_programs(saved.cache)
            members.append(Member(name, LanguageModel.of(saved)))
        yield members


def prompt_bytes(prompt: str | bytes) -> bytes:
    """Returns the bytes of a prompt.

    Raises:
        UserError: for a lone surrogate.
    """
    return utf8_bytes(prompt) if isinstance(prompt, str) else prompt


def split_prompt(
    model: LanguageModel, data: bytes, warm_up: int = WARM_UP
) -> tuple[Int[np.ndarray, " tokens"], bytes]:
    """Returns the tokens that a model begins a prompt with, and the bytes that it reads after them.

    The tokens end `warm_up` bytes or more before the prompt does. They are at most the context's.

    Raises:
        UserError: for bytes that are not UTF-8 before those, which the vocabulary cannot spell.
    """
    whole = _whole_characters(data)
    ids = model.prompt_ids(whole)
    ends = np.cumsum(model.tokenizer.byte_lengths[ids])
    count = max(1, int(np.searchsorted(ends, len(data) - warm_up, side="right")))
    return ids[:count][-model.context :], data[int(ends[count - 1]) :]


def _whole_characters(data: bytes) -> bytes:
    """Leaves out the bytes of a character that the data ends inside of.

    Example:
        >>> _whole_characters("né".encode()[:-1])
        b'n'
    """
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:  # begins a character of 2, 3 or 4 bytes
            length = 2 + (byte >= 0xE0) + (byte >= 0xF0)
            return data[:-back] if length > back else data
        if byte < 0x80:
            return data
    return data


def begin(members: Sequence[Member], readers: Sequence[NextByte], prompts: Sequence[bytes]) -> None:
    """Reads prompts in every member, one in each of the first lanes.

    Args:
        members: of the ensemble.
        readers: the next-byte distribution of each member; all with the same lanes.
        prompts: at most as many as there are lanes.

    Raises:
        UserError: for a prompt that a member's vocabulary cannot spell.
    """
    for member, reader in zip(members, readers, strict=True):
        parts = [split_prompt(member.model, prompt) for prompt in prompts]
        reader.start([ids for ids, _ in parts])
        for place in range(max((len(rest) for _, rest in parts), default=0)):
            symbols = np.full(reader.lanes, STAY)
            for lane, (_, rest) in enumerate(parts):
                if place < len(rest):
                    symbols[lane] = rest[place]
            reader.predict()
            reader.read(symbols)
        possible = reader.predict()[: len(prompts)].sum(axis=1) > 0
        if not possible.all():
            shown = prompts[int(np.argmin(possible))][-WARM_UP:].decode(errors="replace")
            raise UserError(
                f"prompt: {member.name} has no tokens that spell what ends in {shown!r}; give "
                "another prompt, or leave that member out"
            )


def information_of(
    members: Sequence[Member],
    prompts: Sequence[bytes],
    texts: Sequence[Sequence[int]],
    lanes: int = 32,
) -> Float[np.ndarray, "members texts"]:
    """Returns -log2 of the probability that each member gives to texts after their prompts.

    It is that of the next bytes over tokenisations, and infinite where it is 0.

    Args:
        members: of the ensemble.
        prompts: that come before each text.
        texts: bytes, and `END` where the end of a text counts too.
        lanes: texts that are read side by side, at most.
    """
    bits = np.zeros((len(members), len(texts)))
    lanes = min(lanes, len(texts))
    readers = [member.next_byte(lanes) for member in members]
    for first in range(0, len(texts), lanes):
        some = texts[first : first + lanes]
        begin(members, readers, prompts[first : first + lanes])
        for place in range(max(map(len, some))):
            now = np.array([text[place] if place < len(text) else STOP for text in some])
            going = np.flatnonzero(now != STOP)
            symbols = np.full(lanes, STOP)
            symbols[: len(some)] = now
            for own, reader in zip(bits, readers, strict=True):
                with np.errstate(divide="ignore"):
                    own[first + going] -= np.log2(reader.predict()[going, now[going]])
                reader.read(symbols)
    return bits

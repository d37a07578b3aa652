"""Events of text, over tokenisations; the next byte: 256 of them and the end of text.

These events are the same for every vocabulary, so that figures of different vocabularies can be
compared.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Float, Int

from calibtrain.data.batches.sample import Stretch
from calibtrain.data.batches.store import TokenStore
from calibtrain.data.corpora.corpus import Corpus
from calibtrain.data.tokenizers.canonical import CanonicalTokens
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.errors import UserError
from calibtrain.evaluation.byte_windows import WARM_UP, ByteWindow, plan_byte_windows
from calibtrain.evaluation.choices import choice_columns
from calibtrain.evaluation.event_figures import single_figures
from calibtrain.evaluation.event_space import EventSpace, Measurement, require_finite_figures
from calibtrain.evaluation.event_sums import ScoredEvents, Stratum
from calibtrain.evaluation.result import Evaluation
from calibtrain.evaluation.strata import ENTROPY, POSITION
from calibtrain.generation.byte_beam import STOP
from calibtrain.generation.byte_trie import ByteTrie
from calibtrain.generation.next_byte import Beam, NextByte
from calibtrain.models import Network, Params
from calibtrain.models.shared_decoding import can_share
from calibtrain.parallel.each_device import Turn, on_each_device

LANES, LANES_OF_COPIES = 64, 16
"""Texts read side by side on a CPU; where each hypothesis has a cache of its own, as many as the
processor's caches hold."""
LANES_ELSEWHERE = 128

Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""


class WindowReader(Protocol):
    """Reads some windows side by side and scores their events on the way."""

    def next_symbols(
        self, probability: Float[np.ndarray, "lanes 257"]
    ) -> tuple[Int[np.ndarray, " lanes"], Int[np.ndarray, " lanes"] | None] | None:
        """Scores what comes next and returns what each lane reads; None when all has been read.

        The first lanes are the windows'.

        Args:
            probability: of each lane's next symbol, from `NextByte.predict`.

        Returns:
            The arguments of `NextByte.read`.
        """

    @property
    def symbols_read(self) -> int:
        """How many symbols of all windows have been read so far."""

    def events(self) -> list[ScoredEvents]:
        """What has been scored."""


@dataclasses.dataclass(frozen=True)
class TextEvents:
    """Events of text, and how they are scored.

    Attributes:
        space: what the events are.
        plan: plans the windows of a store, as `plan_byte_windows` does.
        reader: makes the reader of some windows, at most so many.
        lanes: lanes of the beam that a window takes.
        strata: returns strata of its own and what is to be noted of them, from the tokenizer and
            the corpus that was trained on (None where it is not here); None means that there are
            none.
    """

    space: EventSpace
    plan: Callable[..., tuple[tuple[Stretch, ...], list[ByteWindow]]]
    reader: Callable[[Sequence[ByteWindow], int], WindowReader]
    lanes: int = 1
    strata: Callable[[Tokenizer, Corpus | None], tuple[list[Stratum], list[str]]] | None = None

    @property
    def canonical(self) -> "TextEvents":
        """These events over canonical tokenisations alone, under a name of their own."""
        space = dataclasses.replace(
            self.space,
            name=f"canonical-{self.space.name}",
            about={**self.space.about, "tokenisations": "canonical"},
            normalised="local",
        )
        return dataclasses.replace(self, space=space)


class ByteReader:
    """Scores each next symbol of the windows; a `WindowReader`.

    correct is 1 where the (first) most probable symbol is the one that came.
    """

    def __init__(self, windows: Sequence[ByteWindow], lanes: int):
        longest = max(len(window.symbols) for window in windows)
        self._symbols = np.full((longest + 1, lanes), STOP, np.int64)
        self._scored = np.zeros((longest, lanes), bool)
        self._document, self._before = np.full(lanes, -1, np.int64), np.zeros(lanes, np.int64)
        for lane, window in enumerate(windows):
            self._symbols[: len(window.symbols), lane] = window.symbols
            self._scored[window.scored_from : len(window.symbols), lane] = True
            self._document[lane], self._before[lane] = window.document, window.before
        self._place, self.symbols_read = 0, 0
        self._events: list[ScoredEvents] = []

    def next_symbols(
        self, probability: Float[np.ndarray, "lanes 257"]
    ) -> tuple[Int[np.ndarray, " lanes"], None] | None:
        """Scores the next symbols and returns them (see `WindowReader`)."""
        if self._place == len(self._scored):
            return None
        now, following = self._symbols[self._place : self._place + 2]
        scored = self._scored[self._place]
        self._events.append(
            ScoredEvents(
                document=self._document[scored],
                values=choice_columns(probability[scored], None, now[scored]),
                before=self._before[scored] + self._place,
            )
        )
        self._place += 1
        self.symbols_read += int((now != STOP).sum())
        # the last symbol of a window needs no state after it
        return np.where(following == STOP, STOP, now), None

    def events(self) -> list[ScoredEvents]:
        """What has been scored."""
        return self._events


class TextEvaluator:
    """Evaluates parameters of one network on events of text, for any store of its vocabulary."""

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        *,
        context: int,
        bins: int,
        beam: Beam | None = None,
        canonical: bool = False,
        lanes: int | None = None,
        events: TextEvents | None = None,
        fitted: str | None = None,
    ):
        """Args:
        network: the model.
        tokenizer: its vocabulary.
        context: tokens that the model sees back, itself included.
        bins: equal-width bins of the ECE.
        beam: how many of all tokenisations are followed; default `Beam()`, or none where canonical
            ones are.
        canonical: whether the canonical tokenisations are followed; a beam is then measured beside
            them.
        lanes: texts side by side; default: what suits the platform.
        events: what is predicted; default: the next byte.
        fitted: name of the network's head, if it was fitted afterwards.

        Raises:
            UserError: for a tokenizer whose canonical tokenisations cannot be told.
        """
        self._head, self._fitted = network.head.name if network.head else None, fitted
        self.network, self.tokenizer, self.context, self.bins = network, tokenizer, context, bins
        events = events or NEXT_BYTE
        self.events = events.canonical if canonical else events
        self._canonical = CanonicalTokens(tokenizer) if canonical else None
        self._beam = beam if canonical else beam or Beam()
        self._lanes = lanes
        self.trie = ByteTrie.of(tokenizer.piece_bytes, tokenizer.eos_id)

    def evaluate(
        self,
        params: Params,
        store: TokenStore,
        about: Mapping[str, Any],
        *,
        limit: int | None = None,
        groups: Sequence[str] = (),
        trained_on: Corpus | None = None,
        progress: Progress = lambda done, total: None,
    ) -> Evaluation:
        """Scores a store or a sample of it.

        Beside the figures of a beam stand those of a wider one (`wider`, and `difference`, the
        former less the latter); beside those of canonical tokenisations, if a beam is named, those
        of that beam over all (`beam_over_all`, and `excess`, the latter less the former).

        Args:
            params: the model's parameters.
            store: tokens of a split, in the network's vocabulary.
            about: what the results belong to: corpus, split, step, hashes.
            limit: how many bytes of text; None means all.
            groups: group of each document of the store; empty: results are not given by group.
            trained_on: the corpus that the model was trained on, whose words are counted; None
                where it is not here.
            progress: called before each step of a byte; may raise to give up.

        Raises:
            UserError: where no tokenisation that is followed allows the text.
            NonFiniteError: where a result is infinite or NaN.
        """
        stretches, windows = self.events.plan(
            store, self.tokenizer.piece_bytes, context=self.context, limit=limit
        )
        if not windows:
            raise UserError(
                f"{limit} bytes: no {self.events.space.name} begins in them; ask for more bytes"
            )
        strata: list[Stratum] = []
        if self.events.strata:
            strata, notes = self.events.strata(self.tokenizer, trained_on)
            if notes:
                about = {**about, "notes": [*about.get("notes", ()), *notes]}
        measured = Measurement(
            self.events.space, store, stretches, about, self.bins, groups, strata
        )
        follow: list[Beam | CanonicalTokens] = []
        if self._canonical is not None:
            follow.append(self._canonical)
        if self._beam is not None:
            follow.append(self._beam)
        if self._canonical is None and self._beam is not None:
            follow.append(self._beam.wider)
        sums = [
            measured.sums(self._passes(params, windows, each, number, len(follow), progress))
            for number, each in enumerate(follow)
        ]
        results = measured.results(sums[0])
        if len(follow) > 1:
            beside, _ = single_figures(sums[1])
            require_finite_figures(beside, about)
            beam = follow[1]
            assert isinstance(beam, Beam)
            results |= _beside(results, beside, beam, exact=self._canonical is not None)
        settings: dict[str, Any] = {"warm_up": WARM_UP}
        if isinstance(first := follow[0], Beam):
            settings = {"beam": first.width, "ratio": first.ratio, **settings}
        return measured.evaluation(
            sums[0],
            results,
            limit=limit,
            context=self.context,
            head=self._head,
            fitted=self._fitted,
            settings=settings,
        )

    def _passes(
        self,
        params: Params,
        windows: Sequence[ByteWindow],
        follow: Beam | CanonicalTokens,
        number: int,
        passes: int,
        progress: Progress,
    ) -> Iterator[ScoredEvents]:
        """The events of one of the passes, refused where no tokenisation allows the text."""
        events = self.score(
            params,
            windows,
            follow,
            lambda done, total: progress(number * total + done, passes * total),
        )
        for name in self.events.space.columns:
            if not np.isfinite(events.column(name)).all():
                raise UserError(
                    "no tokenisation that is followed allows what the text says; follow more: a "
                    "larger --beam, a lower --ratio"
                    if isinstance(follow, Beam)
                    else "the tokens of the text are not canonical; use --tokenisations all"
                )
        yield events

    def _most_lanes(self, params: Params) -> int:
        if self._lanes is not None:
            return self._lanes
        if jax.default_backend() != "cpu":
            return LANES_ELSEWHERE
        return LANES if can_share(self.network, params) else LANES_OF_COPIES

    def score(
        self,
        params: Params,
        windows: Sequence[ByteWindow],
        follow: Beam | CanonicalTokens,
        progress: Progress = lambda done, total: None,
    ) -> ScoredEvents:
        """Scores the events of windows, several side by side on each device of this process.

        Args:
            params: the model's parameters.
            windows: in the order of their plan, which puts windows of like lengths together.
            follow: the tokenisations that are followed.
            progress: called before each step with the number of symbols read, and of all; in the
                threads of the devices, one at a time.
        """
        most = max(1, self._most_lanes(params) // self.events.lanes)
        rounds = max(-(-len(windows) // most), min(len(windows), jax.local_device_count()))
        texts = -(-len(windows) // rounds)  # rounds of about the same size
        batches = [windows[first : first + texts] for first in range(0, len(windows), texts)]
        total, done = sum(len(window.symbols) for window in windows), 0

        def score(
            device: jax.Device, share: Sequence[Sequence[ByteWindow]], turn: Turn
        ) -> list[ScoredEvents]:
            nonlocal done
            next_byte = NextByte.of(
                self.network,
                jax.device_put(params, device),
                self.trie,
                lanes=texts * self.events.lanes,
                context=self.context,
                texts=texts,
                follow=follow,
            )
            scored = []
            for batch in share:
                reader, told = self.events.reader(batch, texts), 0
                next_byte.start([window.prefix for window in batch])
                while (symbols := reader.next_symbols(next_byte.predict())) is not None:
                    with turn:
                        done += reader.symbols_read - told
                        told = reader.symbols_read
                        progress(done, total)
                    next_byte.read(*symbols)
                scored.append(_joined(reader.events()))
            return scored

        found = on_each_device(score, batches)
        progress(total, total)
        return _joined(found)


def _beside(
    own: Mapping[str, Any], figures: Mapping[str, Any], beam: Beam, *, exact: bool
) -> dict[str, Any]:
    """The figures of a second pass, by a beam, and how far the first and it are apart.

    Args:
        own: results of the first pass.
        figures: of the second one.
        beam: of the second pass.
        exact: whether the first pass had no beam, so that the second one is the one that errs.
    """
    singles = [name for name, value in own.items() if isinstance(value, float)]
    known = [name for name in singles if figures[name] is not None]
    found = {
        "beam": beam.width,
        "ratio": beam.ratio,
        **{name: figures[name] for name in singles},
    }
    apart = {name: own[name] - figures[name] for name in known}
    if exact:
        return {
            "beam_over_all": found,
            "excess": {name: -value for name, value in apart.items()},
        }
    return {"wider": found, "difference": apart}


def _joined(parts: Sequence[ScoredEvents]) -> ScoredEvents:
    """The events of all parts, one part after another."""
    columns: dict[str, Any] = {}
    for field in dataclasses.fields(ScoredEvents):
        known = [column for part in parts if (column := getattr(part, field.name)) is not None]
        columns[field.name] = np.concatenate(known) if known else None
    return ScoredEvents(**columns)


NEXT_BYTE = TextEvents(EventSpace("byte", (POSITION, ENTROPY)), plan_byte_windows, ByteReader)

"""The reference band: how surprise and entropy run along held-out text, by position in bytes.

It is computed once for a checkpoint, from teacher-forced documents of a split that the run was not
trained on, and kept in the run's `traces/`.
"""

import bisect
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from calibtrain.analysis.alarms import CLIP, Block, Cusum, EDetector, Rate, cusum_thresholds
from calibtrain.analysis.blocks import BLOCK, blocks_of, first_bytes
from calibtrain.data.batches.stream import document_order
from calibtrain.errors import UserError
from calibtrain.generation.given import trace_of
from calibtrain.generation.language_model import LanguageModel
from calibtrain.runs.loading import SavedRun
from calibtrain.runs.traces import WINDOW, TokenTrace
from calibtrain.storage.disk import make_folder, write_whole
from calibtrain.storage.documents import FORMAT, read_document, sealed

EDGES = (0, 64, 128, 256, 512, 1024, 2048)
"""Bytes at which the ranges of positions begin; one with few documents joins the one before."""
LEAST_DOCUMENTS = 10
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LIMIT = 100_000
"""Bytes of held-out text that are read."""
MOST = 4096
"""Bytes that are read of a document, at most, so that many documents are read."""
STRETCH = 64
"""Blocks of a stretch whose mean tells how far the mean of held-out text wanders."""
WANDERING = 0.5
"""Share of the stretches whose mean lies between the limits of the e-detector: its theory holds for
text that wanders no further, and the measured rate says how it fares on other text."""
ALLOWANCE = 0.5
"""What CUSUM subtracts from each value; 1/2 is quickest for a shift of one standard deviation."""
_BATCH = 4


@dataclasses.dataclass(frozen=True)
class Range:
    """Positions of held-out text.

    Attributes:
        begins: the first byte.
        documents: how many documents reach it.
        surprise: mean of the blocks, in bits a byte.
        surprise_spread: its standard deviation.
        excess: mean of the blocks' surprise less entropy, in bits a byte.
        excess_spread: its standard deviation.
        entropy: mean of the windowed entropy rate where blocks end, in bits a byte.
        quantiles: of the windowed entropy rate, at `QUANTILES`.
    """

    begins: int
    documents: int
    surprise: float
    surprise_spread: float
    excess: float
    excess_spread: float
    entropy: float
    quantiles: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Band:
    """Held-out text as a model reads it.

    Attributes:
        about: whose it is: step, tokenizer, head, context, corpus and split.
        ranges: by position.
        blocks: of each document, standardised: surprise less entropy, and surprise.
        bytes: of text that was read.
    """

    about: Mapping[str, Any]
    ranges: tuple[Range, ...]
    blocks: tuple[tuple[Block, ...], ...] = dataclasses.field(repr=False)
    bytes: int
    _fitted: dict[float, tuple[float, float]] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def at(self, byte: int) -> Range:
        """Returns the range that a byte lies in."""
        return self.ranges[bisect.bisect_right(self._begins, max(byte - 1, 0)) - 1]

    @functools.cached_property
    def _begins(self) -> list[int]:
        return [each.begins for each in self.ranges]

    def standardised(self, ends: Sequence[int], rates: Sequence[Block]) -> list[Block]:
        """Returns blocks less the means of their positions, over the standard deviations.

        Args:
            ends: the bytes at which the blocks end.
            rates: surprise less entropy, and surprise, in bits a byte.
        """
        found = []
        for end, (excess, surprise) in zip(ends, rates, strict=True):
            here = self.at(end)
            rise = (excess - here.excess) / here.excess_spread
            fall = (surprise - here.surprise) / here.surprise_spread
            found.append((rise, fall))
        return found

    @functools.cached_property
    def limits(self) -> tuple[float, float]:
        """The e-detector's limits: half of the held-out stretches have means between them."""
        stretches = [
            np.clip(document[first : first + STRETCH], -CLIP, CLIP).mean(axis=0)
            for document in self.blocks
            for first in range(0, max(1, len(document) - STRETCH // 2), STRETCH)
        ]
        rises, falls = np.transpose(stretches)
        tail = (1 - WANDERING) / 2
        return min(0.0, float(np.quantile(falls, tail))), max(
            0.0, float(np.quantile(rises, 1 - tail))
        )

    @property
    def least_rate(self) -> float:
        """The fewest false alarms per 1,000 bytes that the text is long enough to tell."""
        blocks = sum(map(len, self.blocks))
        return math.ceil(100 * 2000 / (BLOCK * blocks)) / 100

    def cusum(self, rate: Rate) -> Callable[[], Cusum]:
        """Returns what makes a CUSUM test with a rate of false alarms, fitted to the band's text.

        Raises:
            UserError: where the text is too short to tell the rate.
        """
        side = rate.per_side_and_block
        if side not in self._fitted:
            try:
                self._fitted[side] = cusum_thresholds(self.blocks, side, ALLOWANCE)
            except ValueError as error:
                raise UserError(
                    f"false alarms: {rate.per_thousand_bytes:g} per 1,000 bytes cannot be told "
                    f"from {error}; state {self.least_rate:g} or more"
                ) from None
        return functools.partial(Cusum, *self._fitted[side], ALLOWANCE)

    def e_detector(self, rate: Rate) -> Callable[[], EDetector]:
        """Returns what makes an e-detector with a rate of false alarms, stated by theory."""
        low, high = self.limits
        return functools.partial(EDetector, low, high, rate.per_side_and_block)

    def write(self, path: Path) -> None:
        """Writes the band.

        Raises:
            UserError: where the disk is full or may not be written.
        """
        make_folder(path.parent)
        ranges = [dataclasses.asdict(each) for each in self.ranges]
        kept = {"about": dict(self.about), "ranges": ranges, "blocks": self.blocks}
        document = {"format": FORMAT, **kept, "bytes": self.bytes}
        write_whole(path, json.dumps(sealed(json.loads(json.dumps(document)))))

    @classmethod
    def read(cls, path: Path) -> "Band":
        """Reads a band that `write` wrote.

        Raises:
            UserError: for a file that is missing or damaged.
        """
        found = read_document(path, "make it with: calibtrain trace")
        try:
            return cls(
                about=found["about"],
                ranges=tuple(
                    Range(**{**each, "quantiles": tuple(each["quantiles"])})
                    for each in found["ranges"]
                ),
                blocks=tuple(
                    tuple((rise, fall) for rise, fall in document) for document in found["blocks"]
                ),
                bytes=found["bytes"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: is damaged ({error!r}); remove it") from None


def band_of_traces(traces: Iterable[TokenTrace], about: Mapping[str, Any] | None = None) -> Band:
    """Returns the band of teacher-forced documents.

    Raises:
        UserError: where no document has a whole block.
    """
    ends: list[np.ndarray] = []
    rates: list[np.ndarray] = []
    windowed: list[np.ndarray] = []
    size = 0
    for trace in traces:
        tokens, own, bits = blocks_of(excess_and_surprise(trace), trace.byte_lengths)
        size += int(trace.byte_lengths.sum())
        if len(own):
            ends.append(own)
            rates.append(bits)
            table = trace.table().column("entropy_rate_windowed").to_numpy(zero_copy_only=False)
            windowed.append(np.asarray(table)[tokens])
    if not ends:
        raise UserError(
            f"held-out text: {size:,} bytes have no block of {BLOCK} in one document; give a "
            "corpus with longer documents (--corpus)"
        )
    begins = [
        edge for edge in EDGES if not edge or sum(own[-1] > edge for own in ends) >= LEAST_DOCUMENTS
    ]
    bounds = [*begins, np.inf]
    all_ends, all_rates, all_windowed = map(np.concatenate, (ends, rates, windowed))
    ranges = []
    for low, high in pairwise(bounds):
        inside = (all_ends - 1 >= low) & (all_ends - 1 < high)
        here = all_rates[inside]
        entropy = all_windowed[inside]
        ranges.append(
            Range(
                begins=int(low),
                documents=sum(bool(((own - 1 >= low) & (own - 1 < high)).any()) for own in ends),
                surprise=float(here[:, 1].mean()),
                surprise_spread=max(float(here[:, 1].std()), 1e-3),
                excess=float(here[:, 0].mean()),
                excess_spread=max(float(here[:, 0].std()), 1e-3),
                entropy=float(entropy.mean()),
                quantiles=tuple(np.quantile(entropy, QUANTILES).tolist()),
            )
        )
    band = Band(about or {}, tuple(ranges), (), size)
    blocks = tuple(
        tuple((round(x, 3), round(y, 3)) for x, y in band.standardised(own.tolist(), bits.tolist()))
        for own, bits in zip(ends, rates, strict=True)
    )
    return dataclasses.replace(band, blocks=blocks)


def excess_and_surprise(trace: TokenTrace, first: int = 0) -> Float[np.ndarray, "tokens 2"]:
    """Returns surprise less entropy, and surprise, of the tokens from `first` on, in bits."""
    surprise = -np.asarray(trace.log_probability[first:], np.float64)
    return np.stack([surprise - trace.entropy[first:], surprise], axis=1) / math.log(2)


def band_of_run(
    saved: SavedRun,
    model: LanguageModel,
    *,
    corpus: str | None = None,
    split: str = "validation",
    limit: int = LIMIT,
    stopped: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda text: None,
) -> Band:
    """Returns the band of a run's held-out text: the one that is kept, or a new one.

    Args:
        saved: the run.
        model: its model, with its head.
        corpus: as the command line names it; None means the run's own.
        split: of the corpus.
        limit: bytes of text that are read, in whole documents but for those over `MOST` bytes.
        stopped: is asked now and then whether to give up.
        say: is told that a band is made, which takes a while.

    Raises:
        UserError: where the text cannot be had, or is too short, and where it was given up.
    """
    read = saved.corpus(corpus)
    about = {
        "step": saved.step,
        "tokenizer": saved.tokenizer.hash,
        "head": model.head_name,
        "context": model.context,
        "corpus": read.provenance.name,
        "corpus_hash": read.provenance.content_hash,
        "split": split,
        "limit": limit,
        "block": BLOCK,
        "window": WINDOW,
    }
    if saved.head is not None:  # which may be fitted again under its name
        about["head_sha256"] = saved.head.about["parameters_sha256"]
    path = saved.run.traces / ("band.json" if model.head_name is None else "band-head.json")
    if path.exists():
        kept = Band.read(path)
        if kept.about == about:
            return kept
        say(f"{path}: is of another checkpoint, head or text; the band is made anew")
    say(f"reading {read.provenance.name}, {split}, for the reference band (once a checkpoint)")
    documents = read.documents(split)
    texts, size = [], 0
    for number in document_order(len(documents), seed=0, epoch=0):
        if size >= limit:
            break
        texts.append(first_bytes(documents[int(number)].text, MOST))
        size += len(texts[-1].encode())

    def traces() -> Iterator[TokenTrace]:
        for first in range(0, len(texts), _BATCH):
            if stopped():
                raise UserError("stopped before the reference band was made; nothing was kept")
            yield from trace_of(model, texts[first : first + _BATCH])

    band = band_of_traces(traces(), about)
    with saved.writing():
        band.write(path)
    return band

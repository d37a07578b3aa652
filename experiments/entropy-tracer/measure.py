"""False alarms, planted faults found and delays of the Entropy-Tracer, as Markdown tables.

python experiments/entropy-tracer/measure.py RUN --real kjv pydoc files:DIR/*.jsonl.gz

The run's own corpus gives the texts that faults are planted in: `PREFIX` bytes of a test document,
then `FAULT` bytes of the fault. A fault that is missed counts as the rest of the text. Real text is
judged beside a band of the same corpus, from other documents: the validation split of the run's own
corpus, every other document of one that it was not trained on.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calibtrain.analysis.alarms import Rate, alarms_at
from calibtrain.analysis.band import Band, band_of_traces, excess_and_surprise
from calibtrain.analysis.blocks import BLOCK, blocks_of, first_bytes
from calibtrain.generation.generate import generate
from calibtrain.generation.given import trace_of
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.loops import LoopRule, periods
from calibtrain.generation.samplers import Sampling
from calibtrain.runs.loading import SavedRun, opened
from calibtrain.runs.traces import TokenTrace

PREFIX, FAULT = 1024, 1024
MOST = 16_384
"""Bytes that are read of a document, at most."""
RULES = {
    "period, 3 copies, 48 tokens": LoopRule(128, 3, 48),
    "period, 4 copies of 16 to 1,024": LoopRule(1024, 4, 64),
}
Finds = Callable[[TokenTrace], list[int]]
"""Returns the bytes at which alarms are given."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--real", nargs="+", default=["kjv", "pydoc"])
    parser.add_argument("--other", default="pydoc", help="the corpus that a text switches to")
    parser.add_argument("--texts", type=int, default=40)
    parser.add_argument("--bytes", type=int, default=150_000, help="of each split of real text")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.3])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {"false alarms": [], "faults": []}
    with opened(given.run) as saved:
        model = LanguageModel.of(saved)
        bands: dict[str, Band] = {}
        for corpus in given.real:
            name = corpus if corpus != saved.config.corpus.name else None
            if name is None:
                texts, fresh = (
                    texts_of(saved, name, split, given.bytes) for split in ("validation", "test")
                )
            else:  # the run was trained on none of it
                both = texts_of(saved, name, "train", 2 * given.bytes)
                texts, fresh = both[::2], both[1::2]
            held, tested = traces_of(model, texts), traces_of(model, fresh)
            bands[corpus] = band = band_of_traces(held)
            size = sum(int(trace.byte_lengths.sum()) for trace in tested)
            for test, finds in finders(band, given.rates).items():
                alarms = sum(len(finds(trace)) for trace in tested)
                low, high = poisson_interval(alarms)
                row = [corpus, test, size, alarms, *(1000 * x / size for x in (alarms, low, high))]
                found["false alarms"].append(row)
        band = bands[saved.config.corpus.name]
        faults = planted(saved, model, given.texts, given.other)
        for name, texts_with in faults.items():
            traces = traces_of(model, texts_with())
            for test, finds in finders(band, given.rates).items():
                delays = [delay(finds(trace)) for trace in traces]
                share = np.mean([each < FAULT for each in delays])
                found["faults"].append(
                    [name, test, len(traces), float(share), float(np.mean(delays))]
                )
    print("| corpus | test | bytes | alarms | per 1,000 bytes (95 %) |\n|---|---|---|---|---|")
    for corpus, test, size, alarms, per, low, high in found["false alarms"]:
        print(f"| {corpus} | {test} | {size:,} | {alarms} | {per:.2f} ({low:.2f} to {high:.2f}) |")
    print("\n| fault | test | texts | found | mean delay in bytes |\n|---|---|---|---|---|")
    for name, test, count, share, mean in found["faults"]:
        print(f"| {name} | {test} | {count} | {share:.0%} | {mean:,.0f} |")
    if given.out:
        given.out.write_text(json.dumps(found, indent=1))


def texts_of(saved: SavedRun, corpus: str | None, split: str, limit: int) -> list[str]:
    """Returns documents of a split, about so many bytes of them, evenly from all of it."""
    documents = saved.corpus(corpus).documents(split)
    order = np.random.default_rng(0).permutation(len(documents))
    texts: list[str] = []
    size = 0
    for number in order:
        if size >= limit:
            break
        texts.append(first_bytes(documents[int(number)].text, MOST))
        size += len(texts[-1].encode())
    return texts


def traces_of(model: LanguageModel, texts: Sequence[str | bytes]) -> list[TokenTrace]:
    """Returns the traces of texts, a few texts at a time."""
    parts = [trace_of(model, texts[first : first + 16]) for first in range(0, len(texts), 16)]
    return [trace for part in parts for trace in part]


def finders(band: Band, rates: Sequence[float]) -> dict[str, Finds]:
    """Returns the tests by name."""
    found: dict[str, Finds] = {}
    for rate in rates:
        stated = Rate(rate, BLOCK)
        for name, make in (("CUSUM", band.cusum(stated)), ("e-detector", band.e_detector(stated))):
            found[f"{name}, {rate:g}"] = sequential(band, make)
    for name, rule in RULES.items():
        found[name] = repetition(rule)
    return found


def sequential(band: Band, make: Callable[[], Any]) -> Finds:
    def finds(trace: TokenTrace) -> list[int]:
        _, ends, rates = blocks_of(excess_and_surprise(trace), trace.byte_lengths)
        blocks = band.standardised(ends.tolist(), rates.tolist())
        return [int(ends[block]) for block, _ in alarms_at(make(), blocks)]

    return finds


def repetition(rule: LoopRule) -> Finds:
    def finds(trace: TokenTrace) -> list[int]:
        repeats = periods(trace.tokens, rule) > 0
        begun = np.flatnonzero(repeats & ~np.append(False, repeats[:-1]))
        return np.cumsum(trace.byte_lengths)[begun].tolist()

    return finds


def planted(
    saved: SavedRun, model: LanguageModel, count: int, other: str
) -> dict[str, Callable[[], list[bytes]]]:
    """Returns, by name, what makes texts with a fault from byte `PREFIX` on; "none" has none."""
    long = [
        document.text
        for split in ("test",)
        for document in saved.corpus(None).documents(split)
        if len(document.text.encode()) >= PREFIX + FAULT
    ][:count]
    random = np.random.default_rng(1)
    prefixes = [text.encode()[:PREFIX] for text in long]
    rests = [text.encode()[PREFIX : PREFIX + FAULT] for text in long]
    others = [
        document.text.encode()[:FAULT]
        for document in saved.corpus(other).documents("test")
        if len(document.text.encode()) >= FAULT
    ]

    def shuffled(text: bytes) -> bytes:
        words = text.split(b" ")
        return b" ".join(words[place] for place in random.permutation(len(words)))

    def drawn(temperature: float) -> list[bytes]:
        texts = generate(
            model,
            prefixes,
            sampling=Sampling(temperature=temperature),
            max_bytes=FAULT,
            loop_stop=False,
        )
        return [text.data for text in texts]

    def whole(ends: Callable[[], Sequence[bytes]]) -> Callable[[], list[bytes]]:
        return lambda: [before + after for before, after in zip(prefixes, ends(), strict=True)]

    return {
        "none (the text goes on)": whole(lambda: rests),
        "none (drawn at temperature 1)": whole(lambda: drawn(1.0)),
        "temperature 1.5": whole(lambda: drawn(1.5)),
        "temperature 0.5": whole(lambda: drawn(0.5)),
        "loop of 40 bytes": whole(lambda: [(text[-40:] * FAULT)[:FAULT] for text in prefixes]),
        f"switch to {other}": whole(
            lambda: [others[place % len(others)] for place in range(len(prefixes))]
        ),
        "shuffled words": whole(lambda: [shuffled(text) for text in rests]),
    }


def delay(alarms: Sequence[int]) -> int:
    """Returns the bytes from the fault to the first alarm after it; `FAULT` for a miss."""
    return min((byte - PREFIX for byte in alarms if byte > PREFIX), default=FAULT)


def poisson_interval(count: int) -> tuple[float, float]:
    """Returns the exact 95 % interval of a Poisson mean."""
    from scipy.stats import chi2

    low = chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    return float(low), float(chi2.ppf(0.975, 2 * count + 2) / 2)


if __name__ == "__main__":
    main()

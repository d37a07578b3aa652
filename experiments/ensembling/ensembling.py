"""Ensembles over vocabularies: bits per byte, byte ECE, chrF of continuations, speed; as Markdown.

python experiments/ensembling/ensembling.py runs/vocabulary/kjv-headline --seeds 0 1 2

The study's arms are the members. What lies in ensembling.json is not measured again; without a
study, the tables are those of that file.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
from over_seeds import estimate, over_seeds, print_table

from calibtrain.analysis.prompts import Prompt, cut_prompts
from calibtrain.ensembles.agreement import AgreementSearch
from calibtrain.ensembles.agreement_texts import agreement_texts
from calibtrain.ensembles.greedy_texts import greedy_texts
from calibtrain.ensembles.members import Member
from calibtrain.ensembles.mixture_texts import Mixture, mixture_texts
from calibtrain.ensembles.scored import Texts, score_texts
from calibtrain.ensembles.selective import Selective
from calibtrain.ensembles.texts import EnsembleText
from calibtrain.ensembles.union import Union
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.similarity import chrf
from calibtrain.runs.loading import SavedRun, opened
from calibtrain.storage.compiled import use_compiled_programs
from calibtrain.storage.disk import write_whole

FOLDERS = {"256": "byte", **{str(size): f"bpe-8192-{size}" for size in (512, 2048, 8192)}}
"""Arms of the headline cell by the vocabulary's size."""
SETS = (
    ("2048", "8192"),
    ("512", "2048"),
    ("512", "8192"),
    ("256", "8192"),
    ("8192", "8192 of the next seed"),
    ("512", "2048", "8192"),
)
MIXTURES = {
    "linear, equal": Mixture("linear", "fixed"),
    "linear, posterior": Mixture("linear", "posterior"),
    "geometric, equal": Mixture("geometric", "fixed"),
}
Decode = Callable[[Sequence[Member], Sequence[str], int], Sequence[EnsembleText]]


def _mixture(name: str) -> Decode:
    return lambda members, prompts, most: mixture_texts(
        members, prompts, MIXTURES[name], greedy=True, max_bytes=most
    )


DECODERS: dict[str, Decode] = {
    "mixture, linear, posterior": _mixture("linear, posterior"),
    "mixture, linear, equal": _mixture("linear, equal"),
    "mixture, geometric, equal": _mixture("geometric, equal"),
    "agreement": lambda members, prompts, most: [
        found[0] for found in agreement_texts(members, prompts, AgreementSearch(), max_bytes=most)
    ],
    "union": lambda members, prompts, most: greedy_texts(
        members, prompts, Union(), max_bytes=most, informed=False
    ),
    "selective": lambda members, prompts, most: greedy_texts(
        members[::-1], prompts, Selective(), max_bytes=most, informed=False
    ),
}
"""Ways to continue a prompt; of `selective`, the member with the largest vocabulary writes."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, nargs="?", help="the study's folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bytes", type=int, default=4096, help="that are scored")
    parser.add_argument("--prompts", type=int, default=8, help="that are continued")
    parser.add_argument("--characters", type=int, default=200, help="of a prompt")
    parser.add_argument("--max-bytes", type=int, default=64, help="of a continuation")
    parser.add_argument("--seconds", type=float, help="after which no new set is begun")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("ensembling.json"))
    given = parser.parse_args()
    rows = json.loads(given.out.read_text("utf-8"))["rows"] if given.out.exists() else []
    if given.study is not None:
        measure(given, rows)
    show(rows)


def measure(given: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Measures what the file does not hold, and adds it there, one set of members at a time."""
    protocol = {
        name: getattr(given, name) for name in ("bytes", "prompts", "characters", "max_bytes")
    }
    if any(row["protocol"] != protocol for row in rows):
        raise SystemExit(f"{given.out}: holds figures of another protocol; take another --out")
    began = time.monotonic()
    for seed in given.seeds:
        singles = [(size,) for size in FOLDERS]
        wanted = [
            each
            for each in (*singles, *SETS)
            if not any(row["seed"] == seed and row["members"] == list(each) for row in rows)
        ]
        if not wanted:
            continue
        with ExitStack() as stack:
            members, texts, prompts = _opened(stack, given, seed)
            for each in wanted:
                if given.seconds is not None and time.monotonic() - began > given.seconds:
                    return
                print(f"seed {seed}, {' + '.join(each)}", file=sys.stderr)
                own = [members[name] for name in each]
                row = {"members": list(each), "seed": seed, "protocol": protocol}
                row |= {
                    "scores": _scores(own, texts, given.bytes),
                    "continuations": _continuations(own, prompts, given.max_bytes),
                }
                rows.append(row)
                lines = ",\n".join(json.dumps(each) for each in rows)
                write_whole(given.out, '{"rows": [\n' + lines + "\n]}\n")


def _opened(
    stack: ExitStack, given: argparse.Namespace, seed: int
) -> tuple[dict[str, Member], Texts, list[Prompt]]:
    """The members of a seed by name, the text that is scored, and the prompts."""

    def saved(size: str, seed: int) -> SavedRun:
        return stack.enter_context(opened(given.study / f"tokenizer={FOLDERS[size]},seed={seed}"))

    runs = {size: saved(size, seed) for size in FOLDERS}
    runs["8192 of the next seed"] = saved("8192", (seed + 1) % 3)
    for run in runs.values():
        use_compiled_programs(run.cache)
    documents = runs["8192"].corpus(None).documents("test")
    texts = Texts(
        name="kjv",
        content_hash=runs["8192"].corpus(None).provenance.content_hash,
        document_ids=tuple(each.id for each in documents),
        data=tuple(each.text.encode() for each in documents),
    )
    prompts = cut_prompts(documents, count=given.prompts, characters=given.characters)
    return {name: Member(name, LanguageModel.of(run)) for name, run in runs.items()}, texts, prompts


def _scores(members: Sequence[Member], texts: Texts, limit: int) -> dict[str, Any]:
    """Bits per byte and byte ECE by each average, with the differences to each member."""
    found = {}
    for name, mixture in MIXTURES.items():
        if len(members) == 1 and found:
            break
        scored = score_texts(members, texts, mixture, limit=limit)
        figures = scored.ensemble.results
        found[name] = {
            "bits_per_byte": figures["bits_per_byte"],
            "ece": figures["ece"],
            "beam_loss_bits": scored.beam_loss_bits,
            "documents": scored.ensemble.about["documents"],
            "less": scored.differences,
        }
    return found


def _continuations(
    members: Sequence[Member], prompts: Sequence[Prompt], most: int
) -> dict[str, Any]:
    """chrF of each way's continuations against the text, and bytes a second once compiled."""
    found = {}
    for name, decode in DECODERS.items():
        if len(members) == 1 and name not in ("mixture, linear, equal", "agreement"):
            continue
        texts = [prompt.text for prompt in prompts]
        decode(members, texts, 2)  # compiles
        began = time.perf_counter()
        made = decode(members, texts, most)
        seconds = time.perf_counter() - began
        scores = [
            float(chrf(text.text, [_cut(prompt.continuation, most)])[0])
            for text, prompt in zip(made, prompts, strict=True)
        ]
        found[name] = {
            "chrf": float(np.mean(scores)),
            "each": [round(score, 3) for score in scores],
            "bytes_per_second": sum(text.bytes for text in made) / seconds,
        }
    return found


def _cut(text: str, most: int) -> str:
    return text.encode()[:most].decode(errors="ignore")


# --- tables --------------------------------------------------------------------------------------


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the tables: members, gains of mixtures, continuations and speed."""
    by_set: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        by_set.setdefault(tuple(row["members"]), []).append(row)
    alone = {(row["members"][0], row["seed"]): row for row in rows if len(row["members"]) == 1}
    print("Members:\n")
    names = ("mixture, linear, equal", "agreement")
    print_table(
        ["V", "bits per byte", "byte ECE", "chrF greedy", "chrF beam", "bytes/s greedy, beam"],
        [
            [
                own[0],
                *(
                    _seeds(found, "scores", "linear, equal", key)
                    for key in ("bits_per_byte", "ece")
                ),
                *(_seeds(found, "continuations", name, "chrf", decimals=1) for name in names),
                ", ".join(f"{_speed(found, name):.0f}" for name in names),
            ]
            for own, found in by_set.items()
            if len(own) == 1
        ],
    )
    print("Mixtures: bits per byte gained on the better member, and its byte ECE less theirs:\n")
    body = []
    for own, found in by_set.items():
        if len(own) == 1 or not all(_members(row, alone) for row in found):
            continue
        gap = over_seeds(found, lambda row: estimate(_gap(row, alone)))
        for name in MIXTURES:
            body.append(
                [
                    " + ".join(own),
                    gap,
                    name,
                    _seeds(found, "scores", name, "bits_per_byte"),
                    over_seeds(
                        found, lambda row, name=name: estimate(gain(row, name, alone)), signed=True
                    ),
                    over_seeds(
                        found, lambda row, name=name: estimate(_ece(row, name, alone)), signed=True
                    ),
                ]
            )
    print_table(["members", "gap", "average", "bits per byte", "gain", "ECE less"], body)
    print("Slope of the gain on the gap, over the pairs:\n")
    pairs = [row for row in rows if len(row["members"]) == 2 and _members(row, alone)]
    seeds = sorted({row["seed"] for row in pairs})
    body = []
    for name in MIXTURES:

        def slope(seed: Any, name: str = name) -> Any:
            own = [row for row in pairs if row["seed"] == seed]
            gaps = [_gap(row, alone) for row in own]
            return estimate(np.polyfit(gaps, [gain(row, name, alone) for row in own], 1)[0])

        body.append([name, over_seeds(seeds, slope, signed=True)])
    print_table(["average", "bits per byte gained for each bit per byte of gap"], body)
    print("Continuations: chrF, less that of the better member's beam, and bytes a second:\n")
    body = []
    for own, found in by_set.items():
        if len(own) == 1 or not all(_members(row, alone) for row in found):
            continue
        for name in DECODERS:
            body.append(
                [
                    " + ".join(own),
                    name,
                    _seeds(found, "continuations", name, "chrf", decimals=1),
                    over_seeds(
                        found,
                        lambda row, name=name: estimate(_chrf(row, name, alone)),
                        1,
                        signed=True,
                    ),
                    f"{_speed(found, name):.0f}",
                ]
            )
    print_table(["members", "method", "chrF", "less the better member's", "bytes/s"], body)


def _speed(found: Sequence[dict[str, Any]], name: str) -> float:
    """The mean over seeds; what was measured with another load on the machine is left out."""
    speeds = [row["continuations"][name]["bytes_per_second"] for row in found]
    return float(np.mean([speed for speed in speeds if speed is not None]))


def _members(row: dict[str, Any], alone: dict[Any, Any]) -> list[dict[str, Any]] | None:
    """The rows of the members of a set, by themselves; None where one is not measured."""
    keys = []
    for name in row["members"]:
        size, _, other = name.partition(" ")
        keys.append((size, (row["seed"] + 1) % 3 if other else row["seed"]))
    return [alone[key] for key in keys] if all(key in alone for key in keys) else None


def _single(row: dict[str, Any], alone: dict[Any, Any], key: str) -> list[float]:
    members = _members(row, alone)
    assert members is not None
    return [each["scores"]["linear, equal"][key] for each in members]


def _gap(row: dict[str, Any], alone: dict[Any, Any]) -> float:
    """Bits per byte between the worst member and the best one."""
    own = _single(row, alone, "bits_per_byte")
    return max(own) - min(own)


def gain(row: dict[str, Any], name: str, alone: dict[Any, Any]) -> float:
    """Bits per byte that a mixture gains on its best member; below 0 for a loss."""
    own = min(_single(row, alone, "bits_per_byte"))
    return own - row["scores"][name]["bits_per_byte"]


def _ece(row: dict[str, Any], name: str, alone: dict[Any, Any]) -> float:
    own, eces = _single(row, alone, "bits_per_byte"), _single(row, alone, "ece")
    return row["scores"][name]["ece"] - eces[own.index(min(own))]


def _chrf(row: dict[str, Any], name: str, alone: dict[Any, Any]) -> float:
    own, members = _single(row, alone, "bits_per_byte"), _members(row, alone)
    assert members is not None
    better = members[own.index(min(own))]["continuations"]["agreement"]["chrf"]
    return row["continuations"][name]["chrf"] - better


def _seeds(found: Sequence[dict[str, Any]], *keys: str, decimals: int = 3) -> str:
    """The mean of a figure over seeds."""

    def figure(row: Any) -> Any:
        for key in keys:
            row = row[key]
        return estimate(row)

    return over_seeds(found, figure, decimals)


if __name__ == "__main__":
    main()

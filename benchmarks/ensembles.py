"""Bytes a second of ensembles, beside their members alone, as a Markdown table with its bars.

    python -m benchmarks.ensembles RUN RUN
    python -m benchmarks.ensembles RUN --peer PYTHON FOLDER

The runs should be of the quickstart's size. In every round each candidate takes its turn; programs
are compiled before. `of the members` is the speed over half the mean of the members' own speeds by
the same method, which is 1 where two members cost as much as their passes. With --peer, one run
writes a greedy text byte by byte, beside genlm-bytes with the same model (`ensembles_peer`): PYTHON
has it installed, and FOLDER is the run, as `calibtrain export` wrote it.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from calibtrain.ensembles.agreement import AgreementSearch
from calibtrain.ensembles.agreement_texts import agreement_texts
from calibtrain.ensembles.greedy_texts import greedy_texts
from calibtrain.ensembles.members import Member, opened_members
from calibtrain.ensembles.mixture_texts import mixture_texts
from calibtrain.ensembles.selective import Selective
from calibtrain.ensembles.texts import EnsembleText
from calibtrain.ensembles.union import Union
from calibtrain.generation.next_byte import Beam

PROMPT = "And it came to pass in those days, that "
Decode = Callable[[Sequence[Member], int], Sequence[EnsembleText]]


def _agreement(members: Sequence[Member], most: int) -> Sequence[EnsembleText]:
    return agreement_texts(members, [PROMPT], AgreementSearch(5), max_bytes=most)[0][:1]


def _greedy(members: Sequence[Member], method: Union | Selective, most: int) -> list[EnsembleText]:
    return greedy_texts(members, [PROMPT], method, max_bytes=most, informed=False)


def _mixture(samples: int) -> Decode:
    return lambda members, most: mixture_texts(members, [PROMPT], samples=samples, max_bytes=most)


CANDIDATES: dict[str, tuple[Decode, float | None]] = {
    "agreement, beam 5": (_agreement, 50),
    "mixture, one text": (_mixture(1), 100),
    "mixture, 32 texts": (_mixture(32), 1000),
    "union": (lambda members, most: _greedy(members, Union(), most), None),
    "selective": (
        lambda members, most: _greedy(members, Selective(), most),
        None,
    ),
}
"""Ways to decode, and the bytes a second that each is held to."""
SHARE = 0.8
"""Two members are held to this share of half the mean of their own speeds."""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--peer", nargs=2, metavar=("PYTHON", "FOLDER"))
    parser.add_argument("--only", nargs="+", choices=list(CANDIDATES), default=list(CANDIDATES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-bytes", type=int, default=100)
    parser.add_argument("--prompt", default=PROMPT, help="of --peer")
    given = parser.parse_args()
    if given.peer:
        beside_peer(given.runs[0], *given.peer, given.prompt, given.rounds, given.max_bytes)
        return
    with opened_members(given.runs) as members:
        groups = [members, members[:1], members[1:]]
        rates: dict[str, list[list[float]]] = {name: [[], [], []] for name in given.only}
        for turn in range(-1, given.rounds):  # the first one compiles
            for name in given.only:
                decode, _ = CANDIDATES[name]
                for group, own in zip(groups, rates[name], strict=True):
                    began = time.perf_counter()
                    size = sum(text.bytes for text in decode(group, given.max_bytes))
                    rate = size / (time.perf_counter() - began)
                    if turn >= 0 and size:
                        own.append(rate)
    print("| bytes a second | both | members alone | of the members | bar |")
    print("|---|---|---|---|---|")
    for name in given.only:
        _, bar = CANDIDATES[name]
        both, *each = rates[name]
        alone = [median(own) for own in each]
        shares = [a / (sum(b) / 4) for a, *b in zip(both, *each, strict=False)]
        held = "" if bar is None else f"{bar:,.0f}: {_said(median(both) >= bar)}"
        share = f"{median(shares):.2f} ({SHARE}: {_said(median(shares) >= SHARE)})"
        spread = f"{median(both):,.0f} ({min(both):,.0f} to {max(both):,.0f})"
        print(f"| {name} | {spread} | {alone[0]:,.0f}, {alone[1]:,.0f} | {share} | {held} |")


def beside_peer(run: Path, python: str, folder: str, prompt: str, rounds: int, most: int) -> None:
    """Prints the bytes a second of one model after the prompt is read, beside genlm-bytes."""
    beam = Beam()
    script = Path(__file__).with_name("ensembles_peer.py")
    command = [python, script, folder, str(beam.width), str(beam.ratio)]
    peer = subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert peer.stdin is not None
    assert peer.stdout is not None
    name = json.loads(peer.stdout.readline())["ready"]
    rates: dict[str, list[float]] = {"calibtrain": [], name: []}
    texts: dict[str, str] = {}
    with opened_members([run]) as members:
        for turn in range(-1, rounds):  # the first one compiles
            times: list[float] = []
            (found,) = mixture_texts(
                members,
                [prompt],
                greedy=True,
                max_bytes=most,
                beam=beam,
                on_piece=lambda number, piece, to=times: to.append(time.perf_counter()),
            )
            texts["calibtrain"] = found.text
            peer.stdin.write(json.dumps({"prompt": prompt, "bytes": found.bytes}) + "\n")
            peer.stdin.flush()
            answer = json.loads(peer.stdout.readline())
            texts[name] = answer["text"]
            if turn >= 0:
                rates["calibtrain"].append((found.bytes - 1) / (times[-1] - times[0]))
                rates[name].append((found.bytes - 1) / answer["seconds"])
    peer.stdin.close()
    peer.wait()
    print("| bytes a second, beam 5 | median of the rounds | text |")
    print("|---|---|---|")
    for each, own in rates.items():
        spread = f"{median(own):,.1f} ({min(own):,.1f} to {max(own):,.1f})"
        print(f"| {each} | {spread} | {json.dumps(texts[each])} |")


def _said(holds: bool) -> str:
    return "holds" if holds else "does not hold"


if __name__ == "__main__":
    main()

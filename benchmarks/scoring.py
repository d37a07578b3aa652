"""How fast an imported model scores text, beside PyTorch that does the same, in one run.

python -m benchmarks.scoring RUN [--rows 4] [--window 512] [--repeats 5] [--events 40]

RUN is SmolLM2-135M imported (`make real-model` makes runs/smollm2). Windows of random tokens are
scored in float32: by one program for the nll alone and by that of an evaluation, and by PyTorch
with transformers (forward pass, cross entropy of each token; TRANSFORMERS_PYTHON names the
interpreter of its environment). Events of bytes are those of an evaluation, so many texts side by
side. Prints tables; each candidate is a process of its own and takes its turn in every round.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.generation import ratio, rounds, show, start_ours, start_peer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=__doc__)
    parser.add_argument("run", type=Path, help="SmolLM2-135M, imported")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--events", type=int, default=40, help="bytes of each text; 0: none")
    parser.add_argument("--texts", type=int, nargs="+", default=[4, 64])
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the peer's model is kept")
    given = parser.parse_args()
    if not (given.run / "run.json").exists():
        raise SystemExit(f"{given.run}: is not a run; make real-model imports runs/smollm2")
    with tempfile.TemporaryDirectory() as own:
        folder = (given.folder or Path(own)).resolve() / "hf"
        if not folder.exists():
            from calibtrain.interchange.exported import export_run

            export_run(given.run, folder)
        ours = start_ours(str(given.run), "float32")
        peer = start_peer("transformers", folder, given.cores, "scoring_peer")
        for each in (ours, peer):
            print(f"{each.name}: {each.about.get('ready') or 'absent, ' + str(each.absent)}")
        request = {"rows": given.rows, "tokens": given.window}
        every, alone = "every statistic", "nll alone"
        asked = [
            (ours, every, {"what": "windows", **request}),
            (ours, alone, {"what": "windows_nll", **request}),
            (peer, alone, request),
        ]
        times = rounds(asked, given.repeats)
        show(times, f"Tokens of windows of {given.window}, {given.rows} at once")
        if not peer.absent:
            print()
            theirs = times[peer.name, alone]
            for figure in (every, alone):
                print(f"- {figure}, over PyTorch: {ratio(times[ours.name, figure], theirs):.2f}")
            nll = [times[name, f][0]["nll"] for name, f in ((ours.name, every), (peer.name, alone))]
            print(f"- mean -log p: {nll[0]:.6f} and {nll[1]:.6f} nats")
        peer.end()
        if given.events:
            asked = [
                (ours, f"{texts} texts", {"what": "bytes", "rows": texts, "tokens": given.events})
                for texts in given.texts
            ]
            show(rounds(asked, 1), "Events of bytes")
        ours.end()


if __name__ == "__main__":
    main()

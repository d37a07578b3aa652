"""Matrix scaling beside one temperature and vector scaling: fitted to validation text, then tested.

python experiments/matrix-scaling/measure.py RUN [RUN ...] --out runs/matrix-scaling

Writes OUT/V-SEED.json for each run, and leaves files that are there as they are. Heads are fitted
to the end (no documents held out), as in the paper. Up to 1,024 entries the matrix is full, and in
the row `matrix, stopped` a tenth of the documents decides when to stop, as in
`calibtrain temperature fit`. Above, the matrix has low rank.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from calibtrain.data.corpora.named import Columns
from calibtrain.fitting.head import Recipe
from calibtrain.losses import CrossEntropy
from calibtrain.models import Params, TemperatureHead
from calibtrain.posthoc.comparison_rows import figures, score_text
from calibtrain.posthoc.fit import fit_on, head_settings
from calibtrain.posthoc.hidden_text import HiddenText, read_hidden_text
from calibtrain.runs.loading import SavedRun, opened
from calibtrain.storage.compiled import use_compiled_programs
from calibtrain.storage.disk import cache_directory
from calibtrain.temperature import make_head

LARGEST_FULL = 1024
FIGURES = ("nll", "bits_per_byte", "ece", "signed_gap", "accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    use_compiled_programs(cache_directory())
    for path in given.run:
        with opened(path, columns={None: Columns()}) as saved:
            name = f"{saved.tokenizer.vocab_size}-{saved.config.seed}.json"
            if not (given.out / name).exists():
                found = measure(saved)
                (given.out / name).write_text(json.dumps(found, indent=1) + "\n")
            print(name, flush=True)


def measure(saved: SavedRun) -> dict[str, Any]:
    """Returns the rows of a run, the first of them for no head."""
    vocab = saved.tokenizer.vocab_size
    to_the_end = Recipe(steps=300, tokens=1024, held_out=0.0)
    ways = {"global": ("global", to_the_end), "vector": ("vector", to_the_end)}
    if vocab <= LARGEST_FULL:
        ways["matrix"] = ("matrix", to_the_end)
        ways["matrix, stopped"] = ("matrix", dataclasses.replace(to_the_end, held_out=0.1))
    else:
        shorter = dataclasses.replace(to_the_end, steps=150, tokens=512)
        ways["vector"] = ("vector", shorter)
        ways["low-rank matrix"] = ("low_rank_matrix", shorter)
    fitted_on = read_hidden_text(saved, None, "validation", None)
    text = read_hidden_text(saved, None, "test", None)
    bins = saved.config.evaluation.bins
    rows = [_row("none", 0, 0, fitted_on, text, None, None, bins)]
    for name, (kind, recipe) in ways.items():
        config = head_settings(kind, {})
        found = fit_on(fitted_on, config, saved, CrossEntropy(), recipe)
        head = make_head(config, saved.config.model, vocab)
        count = sum(np.size(leaf) for leaf in jax.tree.leaves(found.params))
        rows.append(_row(name, count, found.steps, fitted_on, text, head, found.params, bins))
        print(f"{name}: {found.seconds:.0f} s, nll {found.nll_after:.4f}", flush=True)
    return {
        "vocab_size": vocab,
        "seed": saved.config.seed,
        "fitted_tokens": fitted_on.states.tokens,
        "test_tokens": text.states.tokens,
        "rows": rows,
    }


def _row(
    name: str,
    parameters: int,
    steps: int,
    fitted_on: HiddenText,
    text: HiddenText,
    head: TemperatureHead | None,
    params: Params | None,
    bins: int,
) -> dict[str, Any]:
    found: dict[str, Any] = {"head": name, "parameters": parameters, "steps": steps}
    for place, each in (("fitted", fitted_on), ("test", text)):
        own = figures(score_text(each, head, params, bins))
        found[place] = {figure: own[figure] for figure in FIGURES}
    return found


if __name__ == "__main__":
    main()

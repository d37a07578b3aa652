"""`calibtrain lens`: a run, looked into with texts, or with labelled ones to tell labels apart."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from calibtrain.analysis.lens import SHANNON, LayerEntropies, layer_entropies, renyi_name
from calibtrain.analysis.of_run import Counting, Silent, kept, require
from calibtrain.analysis.separation import CrossValidation, Separation, separation
from calibtrain.data.predictions.rows import SUFFIXES, open_rows
from calibtrain.errors import UserError
from calibtrain.generation.language_model import LanguageModel
from calibtrain.runs.analysis_records import analysis_file
from calibtrain.runs.instrument_records import LensRecord
from calibtrain.runs.loading import Say, opened
from calibtrain.storage.byte_pieces import spelled_bytes
from calibtrain.storage.compiled import use_compiled_programs
from calibtrain.storage.places import place


@dataclasses.dataclass(frozen=True)
class LabelledText:
    """A text with a label, and what comes before it and is not counted."""

    text: str | bytes
    label: str
    prompt: str = ""


@dataclasses.dataclass(frozen=True)
class Lens:
    """What each layer of a run would predict of some texts.

    Attributes:
        about: run, step, tokenizer, head, context.
        found: the entropies of each text.
        labels: of each text; empty where texts have none.
        separation: by name of the entropy, how well its profiles tell the labels apart.
        window: tokens of each profile within a text; None means that there are none.
        path: the file in the run's `analysis/` that holds it; None where it is not kept.
    """

    about: dict[str, Any]
    found: list[LayerEntropies]
    labels: tuple[str, ...] = ()
    separation: dict[str, Separation] = dataclasses.field(default_factory=dict)
    window: int | None = None
    path: Path | None = None

    def record(self) -> LensRecord:
        """Returns it as its file holds it."""
        return LensRecord.of(self.to_dict())

    @property
    def names(self) -> list[str]:
        """The entropies that were computed."""
        return list(self.found[0].entropy)

    def to_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints; labelled texts are given by their profiles alone."""
        texts = []
        for number, own in enumerate(self.found):
            row: dict[str, Any] = {
                "tokens": len(own.tokens) - own.read,
                "profile": {name: _plain(own.profile(name)) for name in self.names},
            }
            if self.labels:
                texts.append({"label": self.labels[number], **row})
                continue
            changes = {name: own.changes(name) for name in self.names}
            row["expanded"] = {name: up for name, (up, _) in changes.items()}
            row["pruned"] = {name: down for name, (_, down) in changes.items()}
            if self.window is not None:
                row["windows"] = {name: _plain(own.profiles(self.window, name)) for name in changes}
            by_token = {name: own.entropy[name].T.tolist() for name in changes}
            row["rows"] = [
                {
                    "token": int(token),
                    **spelled_bytes("piece", piece),
                    "entropy": {name: by_token[name][place] for name in by_token},
                }
                for place, (token, piece) in enumerate(zip(own.tokens, own.pieces, strict=True))
            ]
            texts.append(row)
        return {
            **self.about,
            "layers": len(self.found[0].entropy[SHANNON]),
            "window": self.window,
            "texts": texts,
            "separation": {
                name: dataclasses.asdict(each) for name, each in self.separation.items()
            },
        }


def look_into_run(
    path: Path,
    texts: Sequence[str | bytes] = (),
    *,
    labelled: Sequence[LabelledText] = (),
    renyi: Sequence[float] = (),
    window: int | None = None,
    head: str | None = None,
    by: CrossValidation | None = None,
    cache: Path | None = None,
    progress: Counting | None = None,
    say: Say = lambda text: None,
) -> Lens:
    """Returns the entropies of texts after every layer of a run's latest checkpoint.

    The result is also written into the run's `analysis/`, in the place of the one before it: one
    file of texts, one of labelled ones.

    Args:
        path: the run folder.
        texts: to look into; or else
        labelled: texts whose labels are to be told apart by their profiles.
        renyi: orders of Renyi entropies that are computed too.
        window: tokens of each profile within a text; None means that of the whole text alone.
        head: name of a fitted temperature head; it reads every layer's states, as the last one's.
        by: how labels are told apart; None means the defaults.
        cache: where prepared data is kept.
        progress: is told what is done.
        say: is told in words what the user must know.

    Raises:
        UserError: for numbers that are not allowed, labels that cannot be told apart, a text that
            the vocabulary cannot spell, and a run or head that cannot be had.
    """
    if bool(texts) == bool(labelled):
        raise UserError("--text: give texts, or labelled texts (--labelled), and not both")
    if window is not None:
        require("window", window, 1)
    progress = progress or Silent()
    labels = tuple(each.label for each in labelled)
    if labelled:  # what cannot be told apart is refused before anything is read
        (by or CrossValidation()).check(labels)
    path = place(path)
    with opened(path, cache, head, say=say) as saved:
        use_compiled_programs(saved.cache)
        model = LanguageModel.of(saved)
        progress.stage("reading texts")
        found = layer_entropies(
            model,
            [each.text for each in labelled] or texts,
            prompts=[each.prompt for each in labelled] or None,
            renyi=renyi,
            progress=progress,
        )
        about = {**model.about, "context": model.context, "vocab_size": model.network.vocab_size}
        told: dict[str, Separation] = {}
        if labelled:
            for name in (SHANNON, *map(renyi_name, dict.fromkeys(renyi))):
                features = np.stack([own.profile(name) for own in found])
                told[name] = separation(features, labels, by)
        seen = Lens(about, found, labels, told, window)
        file = analysis_file(path, "lens", "labels" if labelled else "texts")
        return dataclasses.replace(seen, path=kept(path, file, seen.record(), say))


def read_labelled(path: Path) -> list[LabelledText]:
    """Returns the texts of a file with the columns `text` and `label`, and `prompt` if it is there.

    Raises:
        UserError: for a file of another kind, and a row without text or label.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise UserError(f"--labelled: {path}: is not one of {', '.join(SUFFIXES)}")
    found = []
    for row in open_rows(path):
        prompt = row.values.get("prompt") or ""
        if not isinstance(prompt, str):
            raise row.wrong("prompt", "a text")
        found.append(LabelledText(row.name("text"), row.name("label"), prompt))
    if not found:
        raise UserError(f"--labelled: {path}: holds no text")
    return found


def _plain(values: Float[np.ndarray, "..."]) -> Any:
    """Returns numbers as lists, None for NaN."""
    return [
        _plain(each) if each.ndim else None if np.isnan(each) else float(each) for each in values
    ]

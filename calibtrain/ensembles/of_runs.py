"""Runs that decode together: opened, decoded or scored by a method, and what is said of it."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibtrain.data.corpora.text_files import (
    digest_files,
    digest_set,
    file_names,
    find_files,
    read_files,
)
from calibtrain.ensembles.agreement import AgreementSearch
from calibtrain.ensembles.agreement_texts import agreement_texts
from calibtrain.ensembles.greedy_texts import greedy_texts
from calibtrain.ensembles.members import Member, opened_members, prompt_bytes
from calibtrain.ensembles.mixture_texts import Mixture, OnPiece, mixture_texts
from calibtrain.ensembles.particles import particle_texts
from calibtrain.ensembles.scored import Texts, score_texts
from calibtrain.ensembles.selective import Selective
from calibtrain.ensembles.texts import EnsembleText
from calibtrain.ensembles.union import Union
from calibtrain.errors import UserError
from calibtrain.generation.next_byte import Beam
from calibtrain.generation.of_run import kept_file
from calibtrain.runs.ensemble_traces import EnsembleTrace, steps_table
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.instrument_records import EnsembleScoreRecord
from calibtrain.runs.loading import noted_if_read_only
from calibtrain.storage.byte_pieces import spelled_bytes
from calibtrain.storage.disk import make_folder

Method = Mixture | AgreementSearch | Union | Selective
"""How an ensemble decodes; `NAMES` has the name of each."""
NAMES: Mapping[type, str] = {
    Mixture: "mixture",
    AgreementSearch: "agreement",
    Union: "union",
    Selective: "selective",
}


def method_of(name: str = "mixture", **given: Any) -> Method:
    """Returns a method with its settings.

    Args:
        name: mixture, agreement, union or selective.
        given: the settings of its class, weights as any sequence. The weighting of a mixture may
            also be `uniform`, which is fixed and equal; its default is posterior for a linear
            average, and for a geometric one fixed or, without weights, uniform.

    Raises:
        ValueError: for what is not allowed, in one line that begins with its name.

    Example:
        >>> method_of("mixture", average="geometric", weights=[2, 1])
        Mixture(average='geometric', weighting='fixed', weights=(2.0, 1.0))
    """
    kinds = {own: kind for kind, own in NAMES.items()}
    if name not in kinds:
        raise ValueError(f"method: {name!r} is not allowed; allowed: {', '.join(kinds)}")
    known = [field.name for field in dataclasses.fields(kinds[name])]
    for key in given:
        if key not in known:
            raise ValueError(f"{key}: is not a setting of {name}; there are {', '.join(known)}")
    weights = given.get("weights")
    try:
        settings = {**given, "weights": None if weights is None else tuple(map(float, weights))}
    except (TypeError, ValueError):
        raise ValueError(f"weights: {weights!r}: must be numbers above 0") from None
    if name == "mixture":
        usual = "posterior"
        if given.get("average") == "geometric":
            usual = "uniform" if weights is None else "fixed"
        weighting = given.get("weighting", usual)
        if weighting == "uniform" and weights is not None:
            raise ValueError("weights: is not used with weighting uniform; leave one of them out")
        if weighting == "fixed" and weights is None:
            raise ValueError("weighting: fixed needs weights; or take uniform")
        settings["weighting"] = "fixed" if weighting == "uniform" else weighting
    method: Method = kinds[name](**settings)
    return method


@dataclasses.dataclass(frozen=True)
class Ensembled:
    """The texts of a request, and what is said of the whole.

    Attributes:
        texts: in the order of their numbers; of a search, the best first.
        about: method, its settings and the members.
        seconds: that decoding took, programs compiled included.
        cut: what is to be said of prompts that members did not see whole.
        path: the file that holds the steps; None where they are not kept.
    """

    texts: tuple[EnsembleText, ...]
    about: Mapping[str, Any]
    seconds: float
    cut: tuple[str, ...] = ()
    path: Path | None = None

    @property
    def notes(self) -> list[str]:
        """What is to be said of the prompt, and of texts that not all members could go on with."""
        found = list(self.cut)
        for text in self.texts:
            silent = [name for name, bits in text.members.items() if not math.isfinite(bits)]
            if text.finish_reason == "disagreement":
                found.append(
                    f"after {text.bytes:,} bytes, nothing that one member allows is possible for "
                    "the others: the text ends there; --average linear goes on with those that "
                    "can"
                )
            elif silent:
                found.append(
                    f"{', '.join(silent)} gave a byte of the text probability 0, and had no weight "
                    "from there on"
                )
        return sorted(set(found))

    def to_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints: the fields of the first text, and all texts."""
        texts = [text.to_dict() for text in self.texts]
        first = {key: value for key, value in texts[0].items() if key != "steps"}
        notes = {"notes": self.notes} if self.notes else {}
        trace = {} if self.path is None else {"trace": str(self.path)}
        return {**self.about, **first, **trace, **notes, "texts": texts}


def decode_with_runs(
    paths: Sequence[Path],
    prompt: str | bytes,
    method: Method,
    *,
    samples: int = 1,
    seed: int = 0,
    greedy: bool = False,
    max_bytes: int | None = None,
    beam: Beam | None = None,
    particles: int | None = None,
    explain: bool = False,
    save: str | None = None,
    replace: bool = False,
    on_piece: OnPiece | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Ensembled:
    """Returns texts that the latest checkpoints of runs decode together.

    Args:
        paths: run folders.
        prompt: text, or bytes, which may end inside a character.
        method: how members are joined, with its settings.
        samples: texts; of a search, the best so many.
        seed: of what is drawn.
        greedy: of a mixture, whether the most probable byte is taken.
        max_bytes: most bytes of a text.
        beam: of a mixture, the tokenisations that a member follows.
        particles: of a geometric mixture, draws each text from so many of them (`particles`).
        explain: whether texts say how they came about.
        save: the name under which that is kept in the `ensembles/` of the first run.
        replace: whether a trace of that name may be replaced.
        on_piece: of a mixture, is told of complete characters as they come.
        say: is told in words what the user must know.

    Raises:
        UserError: where a run cannot be opened, for what is not allowed, and where members agree on
            no text.
    """
    if save is not None and particles is not None:
        raise UserError("--save: texts that are drawn from particles have no steps; leave it out")
    with opened_members(paths, say) as members:
        target = kept_file(RunFolder(paths[0]).ensembles, save, replace)
        shown, explain = explain, explain or save is not None
        began = time.perf_counter()
        try:
            if isinstance(method, AgreementSearch):
                found = agreement_texts(
                    members, [prompt], method, max_bytes=max_bytes, explain=explain
                )[0][:samples]
            elif isinstance(method, Union | Selective):
                found = greedy_texts(
                    members, [prompt], method, max_bytes=max_bytes, explain=explain
                )
            elif particles is not None:
                found = particle_texts(
                    members,
                    [prompt],
                    method,
                    particles,
                    samples=samples,
                    seed=seed,
                    max_bytes=max_bytes,
                    beam=beam,
                )
            else:
                found = mixture_texts(
                    members,
                    [prompt],
                    method,
                    samples=samples,
                    seed=seed,
                    greedy=greedy,
                    max_bytes=max_bytes,
                    beam=beam,
                    explain=explain,
                    on_piece=on_piece,
                )
        except ValueError as error:
            raise UserError(str(error)) from None
        seconds = time.perf_counter() - began
        about = {**described(members, method), "seed": seed}
        if particles is not None:
            about["particles"] = particles
        cut = tuple(
            f"{member.name}: the prompt has {size:,} tokens (the document start included), and the "
            f"model saw the last {member.model.context:,}"
            for member in members
            if (size := len(member.model.prompt_ids(prompt))) > member.model.context
        )
        path = None
        if target is not None:
            with noted_if_read_only(paths[0], say):
                _trace_of(found, about).write(target)
                path = target
    if not shown:
        found = [dataclasses.replace(text, steps=()) for text in found]
    return Ensembled(tuple(found), about, seconds, cut, path)


def _trace_of(texts: Sequence[EnsembleText], about: Mapping[str, Any]) -> EnsembleTrace:
    """Returns the steps of texts as a trace, with what `--json` says of the request and of each."""
    said = []
    for text in texts:
        own = text.to_dict()
        own.pop("steps", None)
        said.append({**spelled_bytes("prompt", prompt_bytes(text.prompt)), **own})
    rows = (row for number, text in enumerate(texts) for row in text.rows(number))
    return EnsembleTrace(steps_table(rows), {**about, "texts": said})


def score_with_runs(
    paths: Sequence[Path],
    patterns: Sequence[str],
    mixture: Mixture,
    *,
    field: str = "text",
    limit: int | None = None,
    beam: Beam | None = None,
    save: str | None = None,
    replace: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[EnsembleScoreRecord, Path | None]:
    """Returns how the latest checkpoints of runs score files, and the file that keeps it.

    Args:
        paths: run folders.
        patterns: files of text, JSON lines or Parquet, or globs of them.
        mixture: how members are averaged.
        field: that holds the text of a document.
        limit: how many bytes of text; None means all.
        beam: the tokenisations that a member follows.
        save: the name under which the result is kept in the `ensembles/` of the first run.
        replace: whether a result of that name may be replaced.
        progress: is told how much is read, and of how much.
        say: is told in words what the user must know.

    Raises:
        UserError: where a run or file cannot be opened, and for what is not allowed.
    """
    texts = read_texts(patterns, field)
    with opened_members(paths, say) as members:
        target = kept_file(RunFolder(paths[0]).ensembles, save, replace, ".json")
        try:
            found = score_texts(members, texts, mixture, limit=limit, beam=beam, progress=progress)
        except ValueError as error:
            raise UserError(str(error)) from None
        record = EnsembleScoreRecord.of({**described(members, mixture), **found.to_dict()})
        if target is not None:
            with noted_if_read_only(paths[0], say):
                make_folder(target.parent)
                record.write(target)
                return record, target
    return record, None


def read_texts(patterns: Sequence[str], field: str = "text") -> Texts:
    """Returns the documents of files.

    Raises:
        UserError: for a file that cannot be read, or a document that is not exact text.
    """
    files = find_files(patterns)
    names = file_names(files)
    documents = list(read_files(files, names, field))
    return Texts(
        name=f"files:{','.join(patterns)}",
        content_hash=digest_set(names, digest_files(files)),
        document_ids=tuple(name for name, _, _ in documents),
        data=tuple(text.encode() for _, text, _ in documents),
    )


def described(members: Sequence[Member], method: Method) -> dict[str, Any]:
    """Returns what is said of an ensemble: its method with settings, and its members' models."""
    return {
        "method": NAMES[type(method)],
        "settings": dataclasses.asdict(method),
        "runs": [{**member.model.about, "context": member.model.context} for member in members],
    }

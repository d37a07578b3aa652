"""Documents scored by a byte mixture and by its members, on the same events of the next byte.

Each stretch of a document is read once, by all members side by side, so that figures of the
ensemble and of a member differ by their probabilities alone, and differences are paired over
documents.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from calibtrain.data.batches.sample import Stretch, choose_stretches
from calibtrain.data.corpora.documents import END
from calibtrain.ensembles.byte_mixture import ByteMixture
from calibtrain.ensembles.members import Member, begin
from calibtrain.ensembles.mixture_texts import Mixture
from calibtrain.errors import UserError
from calibtrain.evaluation.choices import choice_columns
from calibtrain.evaluation.event_space import EventSpace, Measurement
from calibtrain.evaluation.event_sums import EventSums, ScoredEvents
from calibtrain.evaluation.figure_intervals import (
    FEWEST_DOCUMENTS,
    document_notes,
    interval_fields,
    plain_figures,
    with_zeros,
)
from calibtrain.evaluation.result import Evaluation
from calibtrain.evaluation.strata import ENTROPY, POSITION
from calibtrain.generation.byte_beam import STOP
from calibtrain.generation.next_byte import Beam
from calibtrain.metrics.ece_intervals import calibration_error_difference
from calibtrain.metrics.jackknife import student_difference

LANES = 32
"""Stretches that are read side by side, at most."""
BINS = 15
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Texts:
    """Documents to score.

    Attributes:
        name: what the results call them.
        content_hash: 16 hex digits of their content.
        document_ids: a name of each.
        data: the bytes of each.
    """

    name: str
    content_hash: str
    document_ids: tuple[str, ...]
    data: tuple[bytes, ...] = dataclasses.field(repr=False)

    @property
    def document_bytes(self) -> Int[np.ndarray, " documents"]:
        """How many bytes each has."""
        return np.array([len(each) for each in self.data], np.int64)


@dataclasses.dataclass(frozen=True)
class Scored:
    """What documents showed of an ensemble and its members.

    Attributes:
        ensemble: the evaluation of the byte mixture.
        members: that of each member, by name; None for one that gives some byte probability 0.
        differences: of each member that has figures, the ensemble's less its own, paired over
            documents: bits_per_byte and ece, each with estimate, lower and upper. Empty for few
            documents.
        beam_loss_bits: the sum over all bytes of -log2 of the share of a member's weight that its
            beam kept, of the member that lost most there.
        notes: what a reader must know.
    """

    ensemble: Evaluation
    members: Mapping[str, Evaluation | None]
    differences: Mapping[str, Mapping[str, Mapping[str, Any]]]
    beam_loss_bits: float
    notes: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        return {
            "bits_per_byte": self.ensemble.results["bits_per_byte"],
            "ece": self.ensemble.results["ece"],
            "members": [
                {
                    "run": name,
                    "bits_per_byte": None if found is None else found.results["bits_per_byte"],
                    "ece": None if found is None else found.results["ece"],
                    "difference": self.differences.get(name),
                    "evaluation": None if found is None else found.to_dict(),
                }
                for name, found in self.members.items()
            ],
            "beam_loss_bits": self.beam_loss_bits,
            "notes": list(self.notes),
            "evaluation": self.ensemble.to_dict(),
        }


def score_texts(
    members: Sequence[Member],
    texts: Texts,
    mixture: Mixture | None = None,
    *,
    limit: int | None = None,
    beam: Beam | None = None,
    bins: int = BINS,
    progress: Progress = lambda done, total: None,
) -> Scored:
    """Scores documents, or a sample of them that is the same for every ensemble.

    Weights begin anew with each stretch (`data.batches.sample`).

    Args:
        members: of the mixture.
        texts: what is scored.
        mixture: how members are averaged; None means `Mixture()`.
        limit: how many bytes of text; None means all.
        beam: how many tokenisations a member follows; None means `Beam()`.
        bins: equal-width bins of the ECE.
        progress: is told how many symbols are read, and of how many.

    Raises:
        UserError: where the ensemble gives a text probability 0, and for a text that a member's
            vocabulary cannot spell before a stretch.
    """
    mixture = mixture or Mixture()
    stretches = [each for each in choose_stretches(texts, limit) if each.stop > each.start]
    if not stretches:
        raise UserError(f"{texts.name}: holds no text; give one that does")
    events, loss = _events(members, texts, mixture, stretches, beam, progress)
    own = [member.model.about for member in members]
    abouts = [
        {"tokenizer_hash": each.get("tokenizer"), "step": each.get("step", 0)} for each in own
    ]
    space = EventSpace("byte", (POSITION, ENTROPY))
    joined = dataclasses.replace(
        space,
        about={"ensemble": [member.name for member in members], **dataclasses.asdict(mixture)},
        normalised="local" if mixture.average == "geometric" else "",
    )
    measured = []
    for kind, about, scored in zip(
        (joined, *[space] * len(members)),
        ({"tokenizer_hash": None, "step": 0}, *abouts),
        events,
        strict=True,
    ):
        about = {"corpus": texts.name, "split": "all", "corpus_hash": texts.content_hash, **about}
        measured.append((Measurement(kind, texts, stretches, about, bins), scored))
    names, notes = ["the ensemble", *(member.name for member in members)], []
    found: list[Evaluation | None] = []
    sums: list[EventSums] = []
    for name, (measurement, scored) in zip(names, measured, strict=True):
        impossible = ~np.isfinite(scored.column("nll"))
        if impossible.any():
            document = texts.document_ids[int(scored.document[np.argmax(impossible)])]
            said = f"{name} gives probability 0 to text of {document}"
            if not found:
                raise UserError(f"{texts.name}: {said}; leave a member out, or --average linear")
            notes.append(f"{said}, so that it has no figures of its own")
            found.append(None)
            sums.append(measurement.sums([]))
            continue
        total = measurement.sums([scored])
        sums.append(total)
        found.append(measurement.evaluation(total, measurement.results(total), limit=limit))
    ensemble = found[0]
    assert ensemble is not None
    kept = {
        name: (evaluation, total)
        for name, evaluation, total in zip(names[1:], found[1:], sums[1:], strict=True)
    }
    return Scored(
        ensemble=ensemble,
        members={name: evaluation for name, (evaluation, _) in kept.items()},
        differences={
            name: _difference(sums[0], total)
            for name, (evaluation, total) in kept.items()
            if evaluation is not None and len(sums[0].blocks) >= FEWEST_DOCUMENTS
        },
        beam_loss_bits=loss,
        notes=[*notes, *document_notes(len(measured[0][0].chosen), sums[0].effective_documents)],
    )


def _difference(ensemble: EventSums, member: EventSums) -> dict[str, Mapping[str, Any]]:
    """The ensemble's figures less a member's, with intervals that are paired over documents."""
    first, second = (with_zeros(each.blocks) for each in (ensemble, member))
    bits = student_difference(first, second, plain_figures(first)["bits_per_byte"])
    ece = calibration_error_difference(ensemble.tables, member.tables)
    return {
        name: {"estimate": interval.estimate, **interval_fields(interval)}
        for name, interval in (("bits_per_byte", bits), ("ece", ece))
    }


def _events(
    members: Sequence[Member],
    texts: Texts,
    mixture: Mixture,
    stretches: Sequence[Stretch],
    beam: Beam | None,
    progress: Progress,
) -> tuple[list[ScoredEvents], float]:
    """Reads all stretches, and returns the events of the ensemble, then those of each member."""
    ordered = sorted(stretches, key=lambda each: each.start - each.stop)
    lanes = min(LANES, len(ordered))
    readers = [member.next_byte(lanes, beam) for member in members]
    parts: list[list[ScoredEvents]] = [[] for _ in (0, *members)]
    total = sum(each.stop - each.start for each in ordered)
    done, loss = 0, 0.0
    for first in range(0, len(ordered), lanes):
        some = ordered[first : first + lanes]
        begin(members, readers, [texts.data[each.document][: each.start] for each in some])
        joint = mixture.of(readers)
        symbols = [_symbols(texts, each) for each in some]
        for place in range(max(map(len, symbols))):
            now = np.array([own[place] if place < len(own) else STOP for own in symbols])
            _score(joint, some, now, place, parts)
            last = [place + 1 >= len(own) for own in symbols]
            following = np.full(lanes, STOP)
            following[: len(some)] = np.where(last, STOP, now)
            joint.read(following)
            loss -= float(np.log2(np.maximum(joint.kept, 1e-300)).sum())
            done += int((now != STOP).sum())
            progress(min(done, total), total)
    return [_joined(each) for each in parts], loss


def _score(
    joint: ByteMixture,
    stretches: Sequence[Stretch],
    now: Int[np.ndarray, " lanes"],
    place: int,
    parts: Sequence[list[ScoredEvents]],
) -> None:
    """Scores the next symbol of each stretch, for the ensemble and for each member."""
    lanes = np.flatnonzero(now != STOP)
    document = np.array([stretches[lane].document for lane in lanes.tolist()])
    before = np.array([stretches[lane].start for lane in lanes.tolist()]) + place
    everyone: list[Float[np.ndarray, "lanes 257"]] = [joint.predict(), *joint.predicted]
    for probability, own in zip(everyone, parts, strict=True):
        values = choice_columns(probability[lanes], None, now[lanes])
        own.append(ScoredEvents(document=document, values=values, before=before))


def _symbols(texts: Texts, stretch: Stretch) -> list[int]:
    data = texts.data[stretch.document]
    end = [END] if stretch.stop == len(data) else []
    return [*data[stretch.start : stretch.stop], *end]


def _joined(parts: Sequence[ScoredEvents]) -> ScoredEvents:
    return ScoredEvents(
        document=np.concatenate([each.document for each in parts]),
        values=np.concatenate([each.values for each in parts]),
        before=np.concatenate([each.before for each in parts if each.before is not None]),
    )

"""The one path from scored events to an `Evaluation`, whatever is predicted.

An `EventSpace` says what its events are: tokens, next bytes, words, predictions of any model. A
`Measurement` takes the events of some documents, as their scorer yields them, through sums
(`event_sums`) and figures (`event_figures`) to an `Evaluation` with signatures and documents.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int

import calibtrain
from calibtrain.data.batches.sample import Documents, Stretch, sample_of, scored_bytes
from calibtrain.errors import NonFiniteError, require_finite
from calibtrain.evaluation.event_figures import compute_results, document_columns
from calibtrain.evaluation.event_sums import COLUMNS, EventSums, ScoredEvents
from calibtrain.evaluation.result import Evaluation
from calibtrain.evaluation.signatures import signatures, temperature_label
from calibtrain.evaluation.strata import Stratum, document_groups
from calibtrain.metrics.signature import NO_HASH, Signature


@dataclasses.dataclass(frozen=True)
class EventSpace:
    """A kind of events.

    Attributes:
        name: what is predicted, as results and signatures say it.
        strata: the ways in which events are cut, beside the groups of their documents.
        columns: which of `COLUMNS` the events have.
        confidence: which probability the confidence is, as signatures say it.
        precision: type in which confidences were computed.
        about: what else results say of the events.
        normalised: how their probabilities were renormalised, as signatures say it beside the name;
            empty where they are those of the model.
    """

    name: str
    strata: tuple[Stratum, ...]
    columns: tuple[str, ...] = COLUMNS
    confidence: str = "max"
    precision: Any = np.float32
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    normalised: str = ""

    @property
    def signed(self) -> str:
        """What signatures say of the events."""
        return ".".join(filter(None, (self.name, self.normalised)))


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Some events of some documents, to be measured.

    Attributes:
        space: what the events are.
        documents: names and sizes of the documents, by index.
        stretches: what is scored of them.
        about: what the results belong to: corpus, split, step, hashes.
        bins: equal-width bins of the ECE.
        groups: group of each document; empty: results are not given by group.
        strata: ways in which these events are cut beside those of the space.
    """

    space: EventSpace
    documents: Documents
    stretches: Sequence[Stretch]
    about: Mapping[str, Any]
    bins: int
    groups: Sequence[str] = ()
    strata: Sequence[Stratum] = ()

    @cached_property
    def chosen(self) -> Int[np.ndarray, " chosen"]:
        """The documents of which something is scored, in the order of the stretches."""
        return np.array(list(dict.fromkeys(stretch.document for stretch in self.stretches)))

    @cached_property
    def scored_bytes(self) -> Int[np.ndarray, " documents"]:
        """How many bytes of each document are scored."""
        return scored_bytes(self.documents, self.stretches)

    def sums(self, batches: Iterable[ScoredEvents]) -> EventSums:
        """Adds up events as they are scored.

        Raises:
            SettingError: for more groups than results can be given by, before anything is scored.
        """
        own = document_groups(self.groups)
        strata = [*self.space.strata, *self.strata, *([] if own is None else [own])]
        sums = EventSums(self.scored_bytes, self.chosen, strata, self.bins, self.space.precision)
        for events in batches:
            sums.add(events)
        return sums

    def results(
        self,
        sums: EventSums,
        *,
        vocabulary_entries: Int[np.ndarray, " deciles"] | None = None,
        thorough: bool = True,
        exact: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Figures and tables; arguments are those of `compute_results`.

        Raises:
            NonFiniteError: where a figure is infinite or NaN.
        """
        found = compute_results(
            sums, vocabulary_entries=vocabulary_entries, thorough=thorough, exact=exact
        )
        require_finite_figures(found, self.about)
        return found

    def evaluation(
        self,
        sums: EventSums,
        results: Mapping[str, Any],
        *,
        limit: int | None = None,
        context: int | None = None,
        temperature: float = 1.0,
        head: str | None = None,
        fitted: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Evaluation:
        """Returns the results with how they were made, and a table of the documents.

        Args:
            sums: of all events.
            results: read from them, and whatever tables stand beside.
            limit: bytes of text that were asked for; None means all.
            context: tokens that the model sees back; None where that is not known.
            temperature: number that divided the logits.
            head: name of the network's head, if it has one.
            fitted: name under which the head was fitted afterwards, if it was.
            settings: what else results say of how events were scored.
        """
        signature = Signature(
            corpus=self.about["corpus_hash"],
            tokenizer=self.about["tokenizer_hash"] or NO_HASH,
            version=calibtrain.__version__,
            event=self.space.signed,
            confidence=self.space.confidence,
            bins=self.bins,
            temperature=temperature_label(temperature, fitted or head),
        )
        return Evaluation(
            about={
                **self.about,
                "event": self.space.name,
                **self.space.about,
                **(settings or {}),
                "limit": limit,
                "context": context,
                "bins": self.bins,
                "temperature": fitted or temperature,
                **({"head": head} if head else {}),
                "documents": len(self.chosen),
                "effective_documents": sums.effective_documents,
                **sample_of(self.documents, self.stretches, self.about["corpus_hash"]),
            },
            results={**results, "signatures": signatures(results, signature)},
            documents=document_columns(self.documents.document_ids, self.chosen, sums),
        )


def require_finite_figures(figures: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Raises a NonFiniteError that names corpus, split, step and the first figure that is not."""
    try:
        require_finite(figures, about["step"])
    except NonFiniteError as error:
        place = f"evaluation {about['corpus']}-{about['split']}"
        raise NonFiniteError(f"{place}: {error}") from None

"""`Evaluation`: results and how they were made, and the JSON and Parquet files that hold them."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import calibtrain
from calibtrain.evaluation.figure_intervals import document_notes
from calibtrain.runs.document_rows import write_documents
from calibtrain.runs.evaluation_records import FIGURE_DETAILS, TABLES, EvaluationRecord
from calibtrain.storage.disk import make_folder
from calibtrain.storage.documents import FORMAT


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Results of a model on one split of a corpus.

    Attributes:
        about: corpus, split, step, hashes, vocab_size, context, bins, documents, and
            effective_documents, how many of equal size would tell as much; limit, about how
            many bytes of text were asked for (None means all); temperature, a number or the name
            of a fitted head; head, the kind of head that the network has; notes on the text. For
            events other than tokens also how they were scored.
        results: from `event_figures.compute_results`, and `signatures`.
        documents: columns of the table with a row per document (see `runs.document_rows`); bins
            are arrays [documents, bins].
        path: the JSON file that holds it; None where it is not kept.
    """

    about: Mapping[str, Any]
    results: Mapping[str, Any]
    documents: Mapping[str, Any]
    path: Path | None = None

    @property
    def figures(self) -> dict[str, float]:
        """The single figures, without tables and details."""
        left_out = (*TABLES, *FIGURE_DETAILS)
        return {name: value for name, value in self.results.items() if name not in left_out}

    def record(self) -> EvaluationRecord:
        """As the JSON file holds it."""
        about = {"format": FORMAT, "version": calibtrain.__version__, **self.about}
        notes = {"notes": self.notes} if self.notes else {}
        return EvaluationRecord(**{**about, **notes, **self.results})

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data."""
        return self.record().document()

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures must know, one sentence each."""
        effective = self.about.get("effective_documents")
        return [*self.about.get("notes", ()), *document_notes(self.about["documents"], effective)]

    def write(self, folder: Path, corpus_hash: str | None, final_bytes: int | None) -> Path:
        """Write NAME.parquet, then NAME.json; the JSON file says that both are whole.

        NAME is CORPUS-SPLIT-STEP for what the run evaluates at its end. For another corpus, amount
        of text, temperature or kind of events, NAME says so in a suffix, so that no file takes the
        place of another.

        Args:
            folder: the folder of the run's evaluations.
            corpus_hash: hash of the run's own corpus.
            final_bytes: how much text the run evaluates at its end.
        """
        make_folder(folder)
        name = file_name(self.about, corpus_hash, final_bytes)
        write_documents(folder / f"{name}.parquet", self.documents)
        path = folder / f"{name}.json"
        self.record().write(path)
        return path


def file_name(about: Mapping[str, Any], corpus_hash: str | None, final_bytes: int | None) -> str:
    """The name of an evaluation's files, without what follows the dot (see `Evaluation.write`)."""
    name = evaluation_name(about)
    if about["corpus_hash"] != corpus_hash:
        name += f"_{about['corpus_hash'][:8]}"
    if (limit := about["limit"]) != final_bytes:
        name += "_whole" if limit is None else f"_{limit}bytes"
    if (temperature := about["temperature"]) != 1.0:
        named = isinstance(temperature, str)
        name += f"_T-{temperature}" if named else f"_T{temperature:.4f}"
    if (event := about["event"]) != "token":
        from calibtrain.generation.next_byte import Beam

        name += f"-{event}"
        if (beam := about.get("beam", Beam().width)) != Beam().width:
            name += f"_beam{beam}"
        if (ratio := about.get("ratio", Beam().ratio)) != Beam().ratio:
            name += f"_ratio{ratio:g}"
    return name


def evaluation_name(about: Mapping[str, Any]) -> str:
    """CORPUS-SPLIT-STEP as a file name: letters of any script, at most 40 for the corpus."""
    corpus = re.sub(r"[^\w.]+", "_", str(about["corpus"])).strip("_")[:40]
    return f"{corpus}-{about['split']}-{about['step']}"


def read_evaluation(path: Path) -> EvaluationRecord:
    """Reads an evaluation's JSON file.

    Raises:
        UserError: when it is damaged or has a format that this version does not know.
    """
    return EvaluationRecord.read(path)

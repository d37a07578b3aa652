"""`Evaluation`: results with all that is needed to know how they were made, as JSON and Parquet."""

import dataclasses
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import calibtrain
from calibtrain.evaluation.tally import COLUMNS
from calibtrain.runs.records import FIGURE_DETAILS, TABLES, EvaluationRecord
from calibtrain.storage.disk import make_folder, write_whole
from calibtrain.storage.documents import FORMAT

WIDTH, RATIO = 5, 0.05
"""The beam of evaluations by bytes and words, where nothing else is asked for."""
ONE_DOCUMENT = "one document: figures have no intervals, which are over documents"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Results of a model on one split of a corpus.

    Attributes:
        about: corpus, split, step, hashes, vocab_size, context, bins, documents; and limit, the
            bytes of text that were asked for, about (none: all); temperature, a number or the name
            of a fitted head; head, the kind of one that the network has; notes, on its text. For
            other events than
            tokens also how they were found.
        results: from `reading.read_results`, and `signatures`.
        documents: columns of the table with a row a document (document, tokens, bytes, nll and
            entropy summed in nats, confidence, correct and the multiclass Brier score summed; those
            that the events have).
    """

    about: Mapping[str, Any]
    results: Mapping[str, Any]
    documents: Mapping[str, Any]

    @property
    def figures(self) -> dict[str, float]:
        """The single figures."""
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
        """What a reader of the figures must know."""
        noted = list(self.about.get("notes", ()))
        return noted + ([ONE_DOCUMENT] if self.about.get("documents") == 1 else [])

    def write(self, folder: Path, corpus_hash: str | None, final_bytes: int | None) -> Path:
        """Write NAME.parquet, then NAME.json; the JSON file says that both are whole.

        NAME is CORPUS-SPLIT-STEP for what the run evaluates at its end. What was measured on
        another corpus, another amount of text or other events than tokens says so behind it, so
        that none takes the place of another.

        Args:
            folder: of the run's evaluations.
            corpus_hash: of the run's own corpus.
            final_bytes: how much text the run evaluates at its end.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        make_folder(folder)
        name = evaluation_name(self.about)
        if self.about["corpus_hash"] != corpus_hash:
            name += f"_{self.about['corpus_hash'][:8]}"
        if (limit := self.about["limit"]) != final_bytes:
            name += "_whole" if limit is None else f"_{limit}bytes"
        if (temperature := self.about["temperature"]) != 1.0:
            named = isinstance(temperature, str)
            name += f"_T-{temperature}" if named else f"_T{temperature:.4f}"
        if (event := self.about["event"]) != "token":
            name += f"-{event}"
            if (beam := self.about["beam"]) != WIDTH:
                name += f"_beam{beam}"
            if (ratio := self.about["ratio"]) != RATIO:
                name += f"_ratio{ratio:g}"
        buffer = io.BytesIO()
        pq.write_table(pa.table(dict(self.documents)), buffer)
        write_whole(folder / f"{name}.parquet", buffer.getvalue())
        path = folder / f"{name}.json"
        self.record().write(path)
        return path


def evaluation_name(about: Mapping[str, Any]) -> str:
    """CORPUS-SPLIT-STEP, fit for a file name: letters of any script, at most 40 for the corpus."""
    corpus = re.sub(r"[^\w.]+", "_", str(about["corpus"])).strip("_")[:40]
    return f"{corpus}-{about['split']}-{about['step']}"


def read_evaluation(path: Path) -> EvaluationRecord:
    """An evaluation's JSON file.

    Raises:
        UserError: when it is damaged, or of a format that this version does not know.
    """
    return EvaluationRecord.read(path)


def document_table(
    names: tuple[str, ...], raw_bytes: np.ndarray, chosen: np.ndarray, sums: np.ndarray
) -> dict[str, Any]:
    """Columns of the per-document table from a tally's sums [documents, 6]; those that exist."""
    columns = dict(zip(("tokens", *COLUMNS), sums[chosen].T, strict=True))
    return {
        "document": [names[index] for index in chosen],
        "bytes": raw_bytes[chosen],
        **{key: column for key, column in columns.items() if not np.isnan(column).all()},
    }

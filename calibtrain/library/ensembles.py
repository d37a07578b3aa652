"""`Ensemble`: runs of any vocabularies that decode and score together."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibtrain.errors import UserError
from calibtrain.library.generated import Listed
from calibtrain.library.progress import Shown, counted, said, shown
from calibtrain.library.run import Run
from calibtrain.library.table import Table
from calibtrain.storage.places import place

if TYPE_CHECKING:
    from calibtrain.ensembles.of_runs import Ensembled, Method
    from calibtrain.ensembles.texts import EnsembleText
    from calibtrain.runs.instrument_records import EnsembleScoreRecord


def ensemble(
    runs: Sequence[Run | str | Path], method: str = "mixture", **settings: Any
) -> "Ensemble":
    """Returns runs as an ensemble, as `calibtrain ensemble` joins them.

    Args:
        runs: at least one; vocabularies may differ.
        method: mixture, agreement, union or selective.
        settings: of the method (docs/ensembles.md): average, weighting and weights of a mixture;
            width and weights of agreement; top and weights of union; draft, consensus, top and
            weights of selective.

    Raises:
        UserError: for a method or setting that is not allowed, or a folder that holds no run.
    """
    from calibtrain.ensembles.of_runs import method_of

    try:
        found = method_of(method, **settings)
    except ValueError as error:
        raise UserError(str(error)) from None
    return Ensemble([run if isinstance(run, Run) else Run(run) for run in runs], found)


class Ensemble:
    """Runs that decode together.

    Attributes:
        runs: the members.
        method: how they are joined, with its settings.
    """

    def __init__(self, runs: Sequence[Run], method: "Method"):
        """Args:
        runs: the members.
        method: how they are joined.
        """
        self.runs, self.method = tuple(runs), method

    def generate(
        self, prompt: str | bytes = "", *, samples: int = 1, seed: int = 0, **more: Any
    ) -> "EnsembleTexts":
        """Returns texts that the members decode together.

        Args:
            prompt: text, or bytes, which may end inside a character.
            samples: texts; of agreement, the best so many.
            seed: of what a mixture draws: text i is a function of the seed and i.
            more: max_bytes; greedy (of a mixture); explain, which gives the steps; save, a name
                under which the first run keeps them, and replace; particles (of a geometric
                mixture), from which each text is drawn.

        Raises:
            UserError: for what is not allowed, and where members agree on no text.
        """
        from calibtrain.ensembles.of_runs import decode_with_runs

        known = {"max_bytes", "greedy", "explain", "save", "replace", "particles"}
        if unknown := set(more) - known:
            raise UserError(f"{sorted(unknown)[0]}: is not a setting of generate")
        found = decode_with_runs(
            [run.folder for run in self.runs],
            prompt,
            self.method,
            samples=samples,
            seed=seed,
            say=said,
            **more,
        )
        for note in found.notes:
            said(f"note: {note}")
        return EnsembleTexts(found)

    def score(
        self,
        files: str | Path | Sequence[str | Path],
        *,
        field: str = "text",
        bytes: int | None = None,
        save: str | None = None,
        replace: bool = False,
        progress: Shown = "auto",
    ) -> "EnsembleScore":
        """Scores the documents of files by a mixture and by each member, on the same bytes.

        Args:
            files: text, JSON lines or Parquet, or globs of them.
            field: that holds the text of a document.
            bytes: how many bytes of text; None means all.
            save: a name under which the first run keeps the scores, for its report too.
            replace: whether scores of that name may be replaced.
            progress: a callback; "auto" shows a bar, None nothing.

        Raises:
            UserError: for a method other than mixture, and for files that cannot be read.
        """
        from calibtrain.ensembles.mixture_texts import Mixture
        from calibtrain.ensembles.of_runs import score_with_runs

        if not isinstance(self.method, Mixture):
            raise UserError("method: mixture alone gives any text a probability; score by one")
        patterns = [files] if isinstance(files, str | Path) else files
        with shown(progress, "scoring") as tell:
            record, path = score_with_runs(
                [run.folder for run in self.runs],
                [str(place(pattern)) for pattern in patterns],
                self.method,
                field=field,
                limit=bytes,
                save=save,
                replace=replace,
                progress=counted(tell),
                say=said,
            )
        return EnsembleScore(record, path)

    def __repr__(self) -> str:
        names = ", ".join(str(run.folder) for run in self.runs)
        return f"<Ensemble of {len(self.runs)} runs by {self.method}: {names}>"


class EnsembleTexts(Listed):
    """The texts of one request.

    Attributes:
        texts: the characters of each, in the order of their numbers; of a search, the best first.
        details: of each: why it ended, its bytes and information in bits, and its members'.
        about: method, settings, members and seed.
        path: the file that keeps the steps; None where they are not kept.
    """

    def __init__(self, found: "Ensembled"):
        """Args:
        found: what was decoded.
        """
        self.details: tuple[EnsembleText, ...] = found.texts
        self.texts = tuple(text.text for text in found.texts)
        self.about, self.path = dict(found.about), found.path

    @property
    def members(self) -> Table:
        """A row for each text and member: the information that the member gave to it, in bits."""
        return Table.of_rows(
            {"text": number, "run": name, "information_bits": bits}
            for number, text in enumerate(self.details)
            for name, bits in text.members.items()
        )

    @property
    def steps(self) -> Table:
        """A row for each step and member, where `explain` asked for them (docs/ensembles.md)."""
        from calibtrain.runs.ensemble_traces import steps_table

        return Table(
            steps_table(
                row for number, text in enumerate(self.details) for row in text.rows(number)
            )
        )

    @property
    def _title(self) -> str:
        return f" by {self.about['method']}"


class EnsembleScore:
    """What a text showed of an ensemble and its members.

    Attributes:
        bits_per_byte: of the ensemble.
        ece: of its next bytes.
        about: method, settings and members.
        record: everything, as `calibtrain ensemble --score --json` prints it;
            `ct.figures.ensemble_scores` takes it.
        path: the file that keeps it; None where it is not kept.
    """

    def __init__(self, record: "EnsembleScoreRecord", path: Path | None = None):
        """Args:
        record: what was scored.
        path: the file that keeps it.
        """
        self.record, self.path = record, path
        about = {"method": record.method, "settings": record.settings, "runs": record.runs}
        self.about: dict[str, Any] = about
        self.bits_per_byte, self.ece = record.bits_per_byte, record.ece

    @property
    def table(self) -> Table:
        """A row for the ensemble and each member; difference is the ensemble's less the member's.

        Ends of the difference's interval, which is paired over documents, are in _lower and _upper.
        """
        rows: list[dict[str, Any]] = [
            {"run": "ensemble", "bits_per_byte": self.bits_per_byte, "ece": self.ece}
        ]
        for member in self.record.members:
            row = {"run": member.run, "bits_per_byte": member.bits_per_byte, "ece": member.ece}
            for key, found in (member.difference or {}).items():
                row |= {
                    f"{key}_difference": found.estimate,
                    f"{key}_lower": found.lower,
                    f"{key}_upper": found.upper,
                }
            rows.append(row)
        return Table.of_rows(rows)

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures must know, one sentence each."""
        return list(self.record.notes)

    def __repr__(self) -> str:
        rows = repr(self.table).partition("\n")[2]
        return f"EnsembleScore by {self.about['method']}\n{rows}"

    def _repr_html_(self) -> str:
        return self.table._repr_html_()

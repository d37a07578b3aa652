"""`Study`: the folder of an ablation, its arms as runs, and its means over seeds as tables."""

import html
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from calibtrain.config import StudyConfig, read_tree, validate
from calibtrain.errors import UserError
from calibtrain.library.run import Run
from calibtrain.library.table import Table
from calibtrain.metrics.quantities import QUANTITIES
from calibtrain.runs.records import STUDY_FILE, StudyRecord
from calibtrain.runs.results import StudyResults, read_study
from calibtrain.storage.places import place


class Study:
    """A study: every arm is a run. It is read from its folder each time.

    Attributes:
        folder: where it is.
    """

    def __init__(self, folder: str | Path):
        """Args:
        folder: of a study whose arms were run.

        Raises:
            UserError: where the folder holds no study, or none of which the results are written.
        """
        self.folder = place(folder)
        if not (self.folder / STUDY_FILE).is_file():
            begun = (self.folder / "study.yaml").is_file()
            what = "is a study that has not ended yet" if begun else "is no study folder"
            raise UserError(f"{self.folder}: {what} (it has no {STUDY_FILE})")
        self.record  # noqa: B018  a damaged one is refused here

    @property
    def config(self) -> StudyConfig:
        """Its configuration: base, grid and controls."""
        path = self.folder / "study.yaml"
        return validate(StudyConfig, read_tree(path), str(path))

    @property
    def record(self) -> StudyRecord:
        """What ablation.json says."""
        return StudyRecord.read(self.folder / STUDY_FILE)

    @property
    def results(self) -> StudyResults:
        """Its records and those of its arms, read together."""
        return read_study(self.folder)

    @property
    def arms(self) -> Mapping[str, Run]:
        """The runs of the arms, by name; an arm that never began has none."""
        folders = {arm.name: self.folder / arm.folder for arm in self.record.arms}
        begun = {n: path for n, path in folders.items() if (path / "config.yaml").is_file()}
        return {name: Run(path) for name, path in begun.items()}

    @property
    def errors(self) -> Mapping[str, str]:
        """Why arms failed, by their name."""
        return {arm.name: arm.error or "" for arm in self.record.arms if arm.status == "failed"}

    @property
    def summary(self) -> Table:
        """Means over seeds: a row for each evaluation and combination of settings.

        Beside each figure, FIGURE_half_width is that of its 95 % interval over seeds (Student's t).
        """
        return Table.of_rows(self._summary())

    def _summary(self) -> Iterator[dict[str, Any]]:
        for row in self.results.summary:
            found: dict[str, Any] = {"evaluation": row.evaluation, **row.settings}
            found |= {"vocab_size": row.vocab_size, "seeds": row.seeds}
            yield found | _figures(row.mean, row.half_width)

    @property
    def differences(self) -> Table:
        """Differences between combinations of settings, paired over seeds, with half widths.

        A row for each evaluation and pair; the settings that it is compared with are in
        `reference_SETTING`. Empty for a study of an earlier version.
        """
        return Table.of_rows(self._differences())

    def _differences(self) -> Iterator[dict[str, Any]]:
        for row in self.record.document().get("differences", ()):
            found: dict[str, Any] = {"evaluation": row["evaluation"], **row["settings"]}
            found |= {f"reference_{key}": value for key, value in row["reference"].items()}
            yield found | {"seeds": row["seeds"]} | _figures(row["mean"], row["half_width"])

    def report(self) -> Path:
        """Writes report.html into the folder, one self-contained page; returns its path.

        Raises:
            UserError: where a file is missing or damaged.
        """
        from calibtrain.report import write_report

        return write_report(self.folder)

    def _lines(self) -> list[str]:
        record = self.record
        arms = [arm.status for arm in record.arms]
        counts = ", ".join(f"{arms.count(status)} {status}" for status in dict.fromkeys(arms))
        grid = ", ".join(f"{key} in {values}" for key, values in record.grid.items())
        return [f"Study in {self.folder}: {record.title}", f"{len(arms)} arms ({counts})", grid]

    def __repr__(self) -> str:
        return f"<{(chr(10) + '  ').join(self._lines())}>"

    def _repr_html_(self) -> str:
        return "<br>".join(map(html.escape, self._lines()))


def _figures(
    mean: Mapping[str, float], half_width: Mapping[str, float | None]
) -> dict[str, float | None]:
    """Returns the figures among what was averaged, each with its half width beside it."""
    found: dict[str, float | None] = {}
    for key in (key for key in QUANTITIES if key in mean):
        found |= {key: mean[key], f"{key}_half_width": half_width.get(key)}
    return found

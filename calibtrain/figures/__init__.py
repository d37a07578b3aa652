"""Plotly figures of records, in one shared style, for a notebook, a report or a browser.

Each function takes records, as a run's folder holds them, and returns a
`plotly.graph_objects.Figure` in the colours of the light or dark scheme: `.show()` draws it.

| function | takes | shows |
|---|---|---|
| `reliability` | evaluations | accuracy against confidence in bins, over the share of events |
| `smooth_reliability` | evaluations | the kernel-smoothed reliability curve, over the density |
| `risk_coverage` | evaluations | error rate of the most confident events, against their share |
| `by_stratum` | evaluations | ECE or signed gap of the groups of a stratum, with intervals |
| `frequency_mass` | evaluations | probability given to each frequency decile, less its share |
| `temperature_heads` | a comparison of heads | differences from no head, with intervals |
| `along_training` | the results of a run | a figure on held-out text during training |
| `entropy_by_position` | an entropy record | entropy of generations and loss of text by position |
| `memory_bound` | memory records | what is lost where only the last tokens are seen |
| `typicality` | a typicality record | information minus entropy of each kind of text |
| `along_text` | a trace | surprise and entropy along it, with band and alarms |
| `sample_agreement` | samples of a prompt | how similar each two are, in the order of answers |
| `token_agreement` | samples of a prompt | agreement along the sample most like the others |
| `entropy_lens` | what a lens saw | entropy after every layer, by token or by label |
| `question_groups` | answers to questions | signed gap of groups, or confidence by outcome |
| `ensemble_scores` | scores of an ensemble | bits per byte or byte ECE beside its members' |

Several evaluations are pooled or averaged, such as the seeds of one combination of settings.

Example:
    >>> from pathlib import Path
    >>> from calibtrain import figures
    >>> from calibtrain.runs.evaluation_records import EvaluationRecord
    >>> record = EvaluationRecord.read(Path("tests/runs/golden/evaluation.json"))
    >>> figures.reliability([record]).layout.xaxis.title.text
    'confidence (probability)'
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import plotly.graph_objects as go

from calibtrain.figures.agreement import sample_matrix_plot, token_agreement_plot
from calibtrain.figures.calibration import Line, reliability_panel, training_panel
from calibtrain.figures.curves import curves
from calibtrain.figures.ensembles import score_panel
from calibtrain.figures.generations import entropy_figure, memory_figure, typicality_figure
from calibtrain.figures.heads import heads_figure
from calibtrain.figures.lens import lens_plot, profile_plot
from calibtrain.figures.questions import group_panels
from calibtrain.figures.strata import CUTS, rows_in
from calibtrain.figures.strata_figures import strata_figure
from calibtrain.figures.style import Scheme, painted
from calibtrain.figures.trace import trace_plot
from calibtrain.metrics.quantities import QUANTITIES
from calibtrain.runs.analysis_records import EntropyRecord, MemoryRecord, TypicalityRecord
from calibtrain.runs.evaluation_records import EvaluationRecord
from calibtrain.runs.instrument_records import EnsembleScoreRecord, QuestionsRecord
from calibtrain.runs.records import HeadComparisonRecord
from calibtrain.runs.results import RunResults

if TYPE_CHECKING:  # a report is read without NumPy and Arrow
    from calibtrain.runs.traces import TraceRecord

__all__ = [
    "along_text",
    "along_training",
    "by_stratum",
    "ensemble_scores",
    "entropy_by_position",
    "entropy_lens",
    "frequency_mass",
    "memory_bound",
    "question_groups",
    "reliability",
    "risk_coverage",
    "sample_agreement",
    "smooth_reliability",
    "temperature_heads",
    "token_agreement",
    "typicality",
]

_COLOUR = "var(--cat-0)"


class HasRecord(Protocol):
    """What holds the record of an evaluation, or makes it: as `Run.evaluate` returns."""

    @property
    def record(self) -> EvaluationRecord | Callable[[], EvaluationRecord]:
        """The record, or what returns it."""


class HasComparison(Protocol):
    """What holds the record of a comparison of heads, as `Run.compare_heads` returns."""

    @property
    def record(self) -> HeadComparisonRecord:
        """The record."""


class HasResults(Protocol):
    """What holds the results of a run, as `calibtrain.library.Run`."""

    @property
    def results(self) -> RunResults:
        """The results."""


Evaluations = Sequence[EvaluationRecord | HasRecord]


def reliability(records: Evaluations, scheme: Scheme = "light") -> go.Figure:
    """Returns a plot of accuracy against confidence in bins, over the share of events in each.

    Args:
        records: evaluations to pool, such as the seeds of one combination of settings.
        scheme: light or dark.
    """
    return painted(reliability_panel("", _records(records), _COLOUR, "").plot, scheme)


def risk_coverage(records: Evaluations, scheme: Scheme = "light") -> go.Figure:
    """Returns a plot of the mean error rate of the most confident events, against their share.

    Args:
        records: evaluations to average.
        scheme: light or dark.

    Raises:
        ValueError: the records are of a version that wrote no such curve.
    """
    return _curve(records, "Risk", scheme)


def smooth_reliability(records: Evaluations, scheme: Scheme = "light") -> go.Figure:
    """Returns a plot of the mean kernel-smoothed reliability curve, over the density of events.

    Args:
        records: evaluations to average.
        scheme: light or dark.

    Raises:
        ValueError: the records are of a version that wrote no such curve.
    """
    return _curve(records, "Smooth", scheme)


def by_stratum(
    records: Evaluations,
    name: str = "positions",
    key: str = "ece",
    scheme: Scheme = "light",
) -> go.Figure:
    """Returns a plot of the ECE or signed gap of each group of a stratum.

    Args:
        records: evaluations to average, such as the seeds of one combination of settings.
        name: of the stratum: frequency_mass, or one of `runs.records.STRATA`.
        key: ece or signed_gap; of frequency_deciles, which are known only afterwards, signed_gap or
            excess_gap.
        scheme: light or dark.

    Raises:
        ValueError: the records have no such stratum, or no such figure of it.
    """
    (cut,) = [each for each in CUTS if each.name == name]
    if not any(rows_in(record, cut) for record in _records(records)):
        raise ValueError(f"records: have no {name}; evaluate again")
    title = f"{QUANTITIES[key].name} by "
    panels = strata_figure(cut, [_line(records)]).panels
    found = [panel.plot for panel in panels if panel.title.startswith(title)]
    if not found:
        raise ValueError(f"key: {key} is not drawn for {name}")
    return painted(found[0], scheme)


def frequency_mass(records: Evaluations, scheme: Scheme = "light") -> go.Figure:
    """Returns a plot of the probability given to each frequency decile, less its observed share.

    Args:
        records: evaluations of tokens to average.
        scheme: light or dark.

    Raises:
        ValueError: the records are of a version that did not measure it.
    """
    return by_stratum(records, "frequency_mass", "gap", scheme)


def temperature_heads(
    record: HeadComparisonRecord | HasComparison, key: str = "ece", scheme: Scheme = "light"
) -> go.Figure:
    """Returns a plot of what each temperature head changes on the first corpus, with intervals.

    Args:
        record: temperature/comparison.json of a run, or what `Run.compare_heads` returns.
        key: nll or ece.
        scheme: light or dark.

    Raises:
        ValueError: the record has no differences from no head.
    """
    figure = heads_figure(record if isinstance(record, HeadComparisonRecord) else record.record)
    if figure is None:
        raise ValueError("record: has no differences; compare the heads again")
    return painted(figure.panels[("nll", "ece").index(key)].plot, scheme)


def along_training(
    run: RunResults | HasResults, key: str = "ece", scheme: Scheme = "light"
) -> go.Figure:
    """Returns a plot of a figure on held-out text against the training text read so far.

    Args:
        run: a run, or results from `runs.results.read_run`.
        key: name of a figure that is measured during training.
        scheme: light or dark.
    """
    run = run if isinstance(run, RunResults) else run.results
    exact = run.record.corpus.entropy_bits_per_byte
    per_byte = QUANTITIES[key].unit == "bits/byte"
    panel = training_panel("", key, [_line((), run)], exact=exact if per_byte else None)
    return painted(panel.plot, scheme)


def entropy_by_position(record: EntropyRecord, scheme: Scheme = "light") -> go.Figure:
    """Returns a plot of the entropy of generations, and the loss of text, against the position.

    Args:
        record: analysis/entropy-*.json of a run, as `calibtrain entropy` writes it.
        scheme: light or dark.
    """
    return _with_legend(painted(entropy_figure(record).panels[0].plot, scheme))


def memory_bound(records: Sequence[MemoryRecord], scheme: Scheme = "light") -> go.Figure:
    """Returns a plot of the bound on memory against the number of tokens seen.

    Args:
        records: analysis/memory-*.json of runs, as `calibtrain memory` writes it; a line each.
        scheme: light or dark.
    """
    return _with_legend(painted(memory_figure(records).panels[0].plot, scheme))


def typicality(record: TypicalityRecord, scheme: Scheme = "light") -> go.Figure:
    """Returns a plot of information minus entropy of human, sampled, greedy and beam text.

    Args:
        record: analysis/typicality-*.json of a run, as `calibtrain typicality` writes it.
        scheme: light or dark.
    """
    return painted(typicality_figure(record).panels[0].plot, scheme)


def _with_legend(figure: go.Figure) -> go.Figure:
    """Returns a plot of several lines with a legend, which a page draws by itself."""
    for trace in figure.data:
        trace.showlegend = trace.name == "value"
        trace.name = trace.legendgroup
    return figure.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.25})


def along_text(
    record: "TraceRecord",
    text: int = 0,
    *,
    band: Mapping[str, Any] | None = None,
    alarms: Sequence[Mapping[str, Any]] = (),
    scheme: Scheme = "light",
) -> go.Figure:
    """Returns a plot of surprise and entropy along a text, in bits a byte of the last 64 bytes.

    Args:
        record: a trace, as `runs.traces.TraceRecord.read` reads it.
        text: number of the text in it.
        band: of held-out text, as `calibtrain trace --json` prints it.
        alarms: as the same document has them.
        scheme: light or dark.

    Raises:
        ValueError: the record has no such text.
    """
    return painted(trace_plot(record, text, band=band, alarms=alarms), scheme)


def sample_agreement(document: Mapping[str, Any], scheme: Scheme = "light") -> go.Figure:
    """Returns a heat map of how similar each two samples of a prompt are.

    Args:
        document: what `calibtrain consistency --json` prints, and `to_dict()` of what
            `Run.consistency` returns.
        scheme: light or dark.
    """
    return painted(sample_matrix_plot(document), scheme)


def token_agreement(document: Mapping[str, Any], scheme: Scheme = "light") -> go.Figure:
    """Returns a heat map of agreement token by token, along the sample most like the others.

    Args:
        document: as for `sample_agreement`.
        scheme: light or dark.
    """
    return painted(token_agreement_plot(document), scheme)


def entropy_lens(
    document: Mapping[str, Any], name: str = "shannon", scheme: Scheme = "light"
) -> go.Figure:
    """Returns a map of entropy by layer and token; of labelled texts, profiles of their labels.

    Args:
        document: as `calibtrain lens --json` prints it, and `Run.lens` has it.
        name: of the entropy: shannon, or renyi-A for the order A.
        scheme: light or dark.

    Raises:
        ValueError: the document has no such entropy, or no tokens.
    """
    draw = profile_plot if document["separation"] else lens_plot
    return painted(draw(document, name), scheme)


def question_groups(
    record: QuestionsRecord, key: str = "signed_gap", scheme: Scheme = "light"
) -> go.Figure:
    """Returns a plot of all questions and of each group, with intervals.

    `reliability` takes the evaluations in the record, `top_candidate` and `every_candidate`.

    Args:
        record: analysis/questions-*.json of a run, as `calibtrain qa` writes it.
        key: signed_gap; or outcome, mean confidence when right less when wrong.
        scheme: light or dark.
    """
    return painted(group_panels(record)[("signed_gap", "outcome").index(key)].plot, scheme)


def ensemble_scores(
    record: EnsembleScoreRecord, key: str = "bits_per_byte", scheme: Scheme = "light"
) -> go.Figure:
    """Returns a plot of a figure of an ensemble beside those of its members, with intervals.

    Args:
        record: ensembles/*.json of a run, and `record` of what `Ensemble.score` returns.
        key: bits_per_byte or ece.
        scheme: light or dark.
    """
    return painted(score_panel(record, key).plot, scheme)


def _curve(records: Evaluations, title: str, scheme: Scheme) -> go.Figure:
    figure = curves([_line(records)])
    panels = figure.panels if figure else ()
    found = [panel.plot for panel in panels if panel.title.startswith(title)]
    if not found:
        raise ValueError("records: are of a version of calibtrain that wrote no such curve")
    return painted(found[0], scheme)


def _line(given: Evaluations, *runs: RunResults) -> Line:
    records = _records(given)
    names = [f"{e.corpus}, {e.split}" for e in records] or [run.record.name for run in runs]
    return Line(names[0], _COLOUR, "solid", tuple(records), runs)


def _records(given: Evaluations) -> list[EvaluationRecord]:
    """Returns the records of evaluations, in whichever form they are given."""
    held = [each if isinstance(each, EvaluationRecord) else each.record for each in given]
    return [each if isinstance(each, EvaluationRecord) else each() for each in held]

"""Read one evaluation's JSON file. What an earlier version did not write is empty."""

from pathlib import Path

from calibtrain.report.json_record import Record, document
from calibtrain.report.results import STRATA, Bin, Evaluation, Interval, Row, SmoothPoint


def read_evaluation(path: Path) -> Evaluation:
    """The evaluation in a file.

    Raises:
        UserError: it is missing, damaged or of another format.
    """
    record = document(path)
    event = event_of(record)
    for key in ("ece", "signed_gap", "bytes", *(["bits_per_byte"] if event == "token" else [])):
        record.number(key)
    signatures = record.maybe_record("signatures")
    return Evaluation(
        corpus=record.text("corpus"),
        split=record.text("split"),
        step=record.whole("step"),
        documents=record.whole("documents"),
        bins=record.whole("bins"),
        event=event,
        temperature=temperature_of(record),
        limit=record.maybe_whole("limit"),
        values=record.numbers(),
        intervals=_intervals(record),
        bounds=record.maybe_record("bounds").numbers(),
        signatures={name: signatures.text(name) for name in signatures.data},
        reliability=tuple(
            Bin(
                lower=row.number("lower"),
                upper=row.number("upper"),
                tokens=row.number("tokens"),
                confidence=row.maybe_number("confidence"),
                accuracy=row.maybe_number("accuracy"),
            )
            for row in record.records("reliability")
        ),
        smooth_reliability=tuple(
            SmoothPoint(
                row.number("confidence"), row.maybe_number("accuracy"), row.number("density")
            )
            for row in record.maybe_records("smooth_reliability")
        ),
        risk_coverage=tuple(
            (row.number("coverage"), row.number("risk"))
            for row in record.maybe_records("risk_coverage")
        ),
        strata={name: _rows(record, name) for name in STRATA if record.data.get(name)},
        raw=record.data,
    )


def event_of(record: Record) -> str:
    """What an evaluation predicts; a token, before there was anything else."""
    return record.maybe_text("event") or "token"


def temperature_of(record: Record) -> float | str:
    """The temperature of an evaluation, or the name of the head that supplied it."""
    found = record.data.get("temperature", 1.0)
    return found if isinstance(found, str) else record.maybe_number("temperature") or 1.0


def _intervals(record: Record) -> dict[str, Interval]:
    found = record.maybe_record("intervals")
    rows = {name: found.record(name) for name in found.data if found.data[name] is not None}
    return {
        name: Interval(row.number("lower"), row.number("upper"), row.text("method"))
        for name, row in rows.items()
    }


def _rows(record: Record, stratum: str) -> tuple[Row, ...]:
    return tuple(
        Row(
            label=row.maybe_text("label") or str(row.whole("decile")),
            tokens=row.number("tokens"),
            values=row.numbers(),
            intervals=_intervals(row),
        )
        for row in record.records(stratum)
    )

"""The commands `entropy`, `memory`, `typicality`, `lookahead`: what generations show of a run."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer

from calibtrain.cli.completion import complete_fitted_head, complete_one_of
from calibtrain.cli.options import AsJson, Field, RunOrBucket, Split
from calibtrain.process.output import print_json, say, say_notes
from calibtrain.storage.places import place

Corpus = Annotated[
    str | None,
    typer.Option(help="Corpus whose documents are continued; default the run's own."),
]
Head = Annotated[
    str | None,
    typer.Option(
        "--temperature",
        help="Name of a head fitted to the run by temperature fit.",
        autocompletion=complete_fitted_head,
    ),
]
Prompts = Annotated[int, typer.Option(help="Documents that are continued, at most.")]
Prefix = Annotated[int, typer.Option(help="Bytes of a document that the model is given.")]
Reference = Annotated[int, typer.Option(help="Bytes that a document holds after it, at least.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of documents and generations.")]


@contextlib.contextmanager
def _opened(
    run: str,
    corpus: str | None,
    field: str | None,
    split: str,
    head: str | None,
    what: str = "measuring",
) -> Iterator[Any]:
    """Opens a run to be analysed, and shows how much is done."""
    from calibtrain.analysis.of_run import opened_to_analyse
    from calibtrain.cli.terminal import show_counting
    from calibtrain.data.corpora.named import Columns

    columns = Columns(field, None if corpus is None else "")
    with (
        show_counting(what) as progress,
        opened_to_analyse(
            place(run),
            corpus=corpus,
            split=split,
            columns=columns,
            head=head,
            progress=progress,
            say=say,
        ) as opened,
    ):
        yield opened


def entropy(
    run: RunOrBucket,
    corpus: Corpus = None,
    field: Field = None,
    split: Split = "test",
    prompts: Prompts = 64,
    samples: Annotated[int, typer.Option(help="Generations from each prefix.")] = 1,
    prefix: Prefix = 128,
    reference: Reference = 512,
    positions: Annotated[
        int | None,
        typer.Option(help="Bytes after the prefix that are compared; default --reference."),
    ] = None,
    width: Annotated[int, typer.Option("--bin", help="Bytes of a bin of positions.")] = 32,
    calibrate: Annotated[
        str,
        typer.Option(
            help="What is fitted and measured too: none, temperature, look-ahead or both.",
            autocompletion=complete_one_of(("none", "temperature", "look-ahead", "both")),
        ),
    ] = "both",
    candidates: Annotated[int, typer.Option(help="Tokens that the look-ahead looks at.")] = 32,
    fit_positions: Annotated[
        int, typer.Option(help="Positions of validation text that the look-ahead is fitted on.")
    ] = 400,
    temperature: Head = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Compare the entropy rate of generations with the cross entropy of the text they continue.

    Brackets are 95 % intervals over documents. Excess is the entropy rate less the cross entropy:
    0 for a calibrated model. The result is kept in RUN/analysis/.

    Example: calibtrain entropy runs/tiny --calibrate none
    """
    from calibtrain.analysis.entropy import Protocol, measure_entropy

    asked = Protocol(
        prompts=prompts,
        samples=samples,
        prefix=prefix,
        reference=reference,
        positions=positions,
        width=width,
        seed=seed,
        fit_positions=fit_positions,
        candidates=candidates,
    )
    with _opened(run, corpus, field, split, temperature) as opened:
        record, path = measure_entropy(opened, asked, calibrate=calibrate)
    _show(record, path, _print_entropy, as_json=as_json)


def _print_entropy(record: Any) -> None:
    """Prints a row for the documents and for each kind of generation."""
    headings = (
        *("texts", "reach the end", "bits/byte", "first bin", "last bin", "rise", "excess"),
        *("amplification", "by byte"),
    )
    rows = []
    for row in record.rows:
        common = [each.common_bits_per_byte for each in (row.positions[0], row.positions[-1])]
        rows.append(
            [
                row.name,
                str(row.texts),
                str(row.common_texts),
                shown(row.bits_per_byte),
                *(shown(each, ends=False) for each in common),
                shown(row.rise, signed=True),
                shown(row.excess_bits_per_byte, signed=True),
                shown(row.amplification),
                shown(row.amplification_per_byte),
            ]
        )
    title = f"{record.corpus}-{record.split}, {record.documents} documents"
    if record.source_bits_per_byte is not None:
        title += f"; source {record.source_bits_per_byte:.3f} bits/byte"
    print_rows(title, "", headings, rows)
    if record.get("temperature"):
        fit = record.temperature
        say(
            f"temperature: T = {fit.temperature:.4f}, alpha = {fit.alpha:+.4f} "
            f"(nll {fit.nll_before:.4f} to {fit.nll_after:.4f} nats/token, {fit.fitted_on})"
        )
    if record.get("lookahead"):
        fit = record.lookahead
        say(
            f"look-ahead: alpha = {shown(fit.alpha, signed=True)} on {fit.positions} positions "
            f"({fit.covered:.0%} within {fit.candidates} candidates); gain "
            f"{shown(fit.gain, signed=True)} nats/token, held out "
            f"{shown(fit.held_out_gain, signed=True)}"
        )


def memory(
    run: RunOrBucket,
    limited: Annotated[
        str | None,
        typer.Option(help="A run with a short context and the same tokenizer, to compare with."),
    ] = None,
    corpus: Corpus = None,
    field: Field = None,
    split: Split = "test",
    prompts: Prompts = 64,
    prefix: Prefix = 128,
    generated: Annotated[int, typer.Option(help="Bytes of a generation.")] = 512,
    positions: Annotated[int, typer.Option(help="Tokens that are predicted, in all.")] = 2000,
    longest: Annotated[
        int | None, typer.Option(help="Longest memory in tokens; default half the context.")
    ] = None,
    temperature: Head = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Bound how much generations depend on what is more than 1, 2, 4, ... tokens back.

    Brackets are 95 % intervals over texts. The result is kept in RUN/analysis/.

    Example: calibtrain memory runs/tiny
    """
    from calibtrain.analysis.memory import Protocol, measure_memory

    asked = Protocol(prompts, prefix, generated, positions, longest, seed)
    with _opened(run, corpus, field, split, temperature) as opened:
        record, path = measure_memory(
            opened, asked, limited=None if limited is None else place(limited)
        )
    _show(record, path, _print_memory, as_json=as_json)


def _print_memory(record: Any) -> None:
    """Prints a row for each length of memory."""
    tables = [("", record.rows)]
    if record.limited is not None:
        tables.append((f"; predicted by {record.limited.run}", record.limited.rows))
    for more, rows in tables:
        print_rows(
            f"{record.model}, V = {record.vocab_size:,}: what is lost of {record.positions:,} "
            f"tokens of {record.bytes_per_token:.2f} bytes{more}",
            "tokens seen",
            ("bits/byte", "nats/token"),
            [
                [str(row.tokens), shown(row.bits_per_byte), shown(row.nats_per_token)]
                for row in rows
            ],
        )


def typicality(
    run: RunOrBucket,
    scores: Annotated[
        str | None,
        typer.Option(help="CSV, JSON lines or Parquet with columns text and score, to correlate."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="A run, best a larger one, whose bits per byte judge the texts."),
    ] = None,
    corpus: Corpus = None,
    field: Field = None,
    split: Split = "test",
    prompts: Prompts = 64,
    prefix: Prefix = 128,
    generated: Annotated[int, typer.Option(help="Bytes of a continuation.")] = 256,
    beam: Annotated[int, typer.Option(help="Hypotheses of the beam search.")] = 5,
    top_p: Annotated[int, typer.Option(help="Mass of the nucleus, in percent.")] = 90,
    typical: Annotated[
        int, typer.Option(help="Mass of locally typical sampling, in percent.")
    ] = 90,
    temperature: Head = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Set information minus entropy of human, sampled, greedy and beam text against quality.

    Brackets are 95 % intervals over documents. The result is kept in RUN/analysis/.

    Example: calibtrain typicality runs/tiny --prompts 20
    """
    from calibtrain.analysis.typicality import Protocol, measure_typicality

    asked = Protocol(prompts, prefix, generated, beam, top_p, typical, seed)
    with _opened(run, corpus, field, split, temperature) as opened:
        record, path = measure_typicality(
            opened,
            asked,
            scores=None if scores is None else place(scores),
            judge=None if judge is None else place(judge),
        )
    _show(record, path, _print_typicality, as_json=as_json)


def _print_typicality(record: Any) -> None:
    """Prints a row for each kind of text, and for each measure of quality."""
    proxies = list(record.rows[0].quality)
    print_rows(
        f"{record.corpus}-{record.split}, {record.documents} documents, bits/byte",
        "",
        ("texts", "information - entropy", "spread", "information", "entropy", *proxies),
        [
            [
                row.name,
                str(row.texts),
                shown(row.deviation, signed=True),
                "-" if row.spread is None else f"{row.spread:.3f}",
                *(shown(each, ends=False) for each in (row.information, row.entropy)),
                *(shown(row.quality.get(key), ends=False) for key in proxies),
            ]
            for row in record.rows
        ],
    )
    print_rows(
        "Spearman's rank correlation of quality with",
        "",
        ("texts", "information - entropy", "its absolute value"),
        [
            [
                row.quality,
                str(row.texts),
                shown(row.signed, signed=True),
                shown(row.size, signed=True),
            ]
            for row in record.correlations
        ],
    )


def lookahead(
    run: RunOrBucket,
    name: Annotated[str, typer.Option(help="Name of the head.")] = "default",
    rank: Annotated[
        int, typer.Option(help="Numbers of the hidden state that a token weighs in its own way.")
    ] = 16,
    steps: Annotated[int, typer.Option(help="Steps of AdamW.")] = 300,
    bytes_: Annotated[
        int | None,
        typer.Option("--bytes", help="About how much of each split is read; default all of it."),
    ] = None,
    candidates: Annotated[
        int, typer.Option(help="Tokens that are read at each position of test text, to compare.")
    ] = 32,
    positions: Annotated[int, typer.Option(help="Positions of test text.")] = 200,
    temperature: Head = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of parameters, order, positions.")] = 0,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a head of the same name.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fit a head that predicts the entropy of the step after each token, for --lookahead.

    It is fitted to validation text and measured on test text, and kept in RUN/lookahead/.

    Example: calibtrain lookahead runs/tiny
    """
    from calibtrain.analysis.lookahead_head_fit import Recipe, fit_lookahead_head

    recipe = Recipe(rank, steps, candidates, positions, seed)
    with _opened(run, None, None, "test", temperature, "fitting") as opened:
        about, path = fit_lookahead_head(opened, recipe, name=name, replace=replace, limit=bytes_)
    if as_json:
        print_json({"name": name, "file": None if path is None else str(path), **about})
        return
    found = about["r_squared"]
    ends = "" if found["lower"] is None else f" [{found['lower']:.3f}, {found['upper']:.3f}]"
    say(
        f"{name}: R² {found['estimate']:.3f}{ends}, correlation {about['correlation']:.3f} on test "
        f"text; {about['within']:.3f} between candidates of one position ({about['pairs']:,} pairs)"
    )
    if path is not None:
        say(f"written: {path}; use it: --lookahead A --lookahead-head {name}")


def _show(record: Any, path: Any, table: Callable[[Any], None], *, as_json: bool) -> None:
    """Prints what was measured, and says where it is kept."""
    say_notes(record.get("notes") or ())
    if as_json:
        print_json(record.document())
        return
    table(record)
    if path is not None:
        say(f"written: {path}")


def shown(figure: Any, *, ends: bool = True, signed: bool = False) -> str:
    """Returns a figure with its interval in brackets."""
    if figure is None:
        return "-"
    sign = "+" if signed else ""
    text = f"{figure.estimate:{sign}.3f}"
    if not ends or figure.lower is None:
        return text
    return f"{text} [{figure.lower:{sign}.3f}, {figure.upper:{sign}.3f}]"


def print_rows(
    title: str, first: str, headings: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Prints a table whose first column holds names."""
    from rich.table import Table
    from rich.text import Text

    from calibtrain.cli.result_tables import print_table

    table = Table(show_edge=False, title=Text(title), title_justify="left")
    table.add_column(first)
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    print_table(table)

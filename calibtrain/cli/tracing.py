"""The command `trace`: a text of a run, its entropy and its alarms as they happen."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from calibtrain.cli.options import (
    AsJson,
    FittedHead,
    Greedy,
    Lookahead,
    LookaheadHead,
    LookaheadTop,
    LoopStop,
    MaxBytes,
    MaxTokens,
    MinP,
    RepetitionPenalty,
    ReplaceTrace,
    RunOrBucket,
    SaveTrace,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
    Typical,
)
from calibtrain.cli.samplers import (
    check_output,
    check_stops,
    given_only,
    option,
    sampling_of,
)
from calibtrain.errors import UserError
from calibtrain.process.interruption import collected
from calibtrain.process.output import print_json, say, say_notes
from calibtrain.storage.places import place

GIVEN_LIMIT = 100_000
"""Bytes of --text that are traced, by default."""


class Alarms(StrEnum):
    """The sequential tests that give alarms."""

    both = "both"
    cusum = "cusum"
    e_detector = "e-detector"


def trace(
    run: RunOrBucket,
    prompt: Annotated[
        str | None, typer.Option(help="What the generated text begins with; default nothing.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Trace this text and generate none; - reads standard input."
        ),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            help="Whose validation split gives the reference band: kjv, pydoc, markov, files:GLOB "
            "or tfds:NAME[/CONFIG]; default the run's own."
        ),
    ] = None,
    reference: Annotated[
        bool,
        typer.Option(
            "--band/--no-band",
            help="Compare with held-out text; without it, exact repetition alone gives alarms.",
        ),
    ] = True,
    alarms: Annotated[Alarms, typer.Option(help="The sequential tests.")] = Alarms.both,
    rate: Annotated[
        float | None,
        typer.Option(
            "--false-alarms",
            min=0.0,
            max=30.0,
            help="False alarms per 1,000 bytes that each test may give; default 0.1, or as few as "
            "the held-out text can tell.",
        ),
    ] = None,
    seed: Seed = 0,
    max_bytes: MaxBytes = None,
    max_tokens: MaxTokens = None,
    stop: Stop = None,
    loop_stop: LoopStop = True,
    greedy: Greedy = False,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    typical: Typical = None,
    repetition_penalty: RepetitionPenalty = None,
    lookahead: Lookahead = None,
    lookahead_top: LookaheadTop = None,
    lookahead_head: LookaheadHead = None,
    head: FittedHead = None,
    save: SaveTrace = None,
    replace: ReplaceTrace = False,
    lines: Annotated[
        bool,
        typer.Option(
            "--lines", help="Print JSON lines, one per token, while they come; alarms too."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Watch the entropy of a text while it is generated, or of a text that is given.

    A terminal shows the text coloured by surprise (blue: less than its entropy, red: more), the
    entropy rate in bits a byte above the band of held-out text, and alarms: derailment, collapse
    and exact repetition. Piped, it prints the text, and alarms on standard error; --lines prints
    JSON lines as they come, --json one document at the end.

    Example: calibtrain trace runs/tiny --prompt "In the beginning"
    """
    check_output(lines=lines, as_json=as_json, save=save, replace=replace)
    if not reference and (corpus or rate is not None or alarms is not Alarms.both):
        raise UserError(
            "--no-band: leaves out the sequential tests; leave out --corpus, --false-alarms and "
            "--alarms, or --no-band"
        )
    if rate is not None and not rate > 0:
        raise UserError(f"--false-alarms: {rate} is not allowed; allowed: above 0, at most 30")
    chosen = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "typical": typical,
        "repetition_penalty": repetition_penalty,
        "lookahead": lookahead,
        "lookahead_top": lookahead_top,
        "lookahead_head": lookahead_head,
    }
    samplers = given_only(chosen)
    given = None if text is None else given_text(text, "--text", max_bytes or GIVEN_LIMIT)
    if given is not None:
        drawing = {
            "prompt": prompt,
            "greedy": greedy or None,
            "seed": seed or None,
            "max_tokens": max_tokens,
            "stop": stop,
            "no_loop_stop": None if loop_stop else True,
            **samplers,
        }
        if useless := [option(name) for name, value in drawing.items() if value is not None]:
            raise UserError(f"{', '.join(useless)}: generates text, and --text gives it; leave out")
    sampling = sampling_of(samplers, greedy=greedy)
    check_stops(stop)

    from calibtrain.analysis.tracing import trace_run
    from calibtrain.analysis.watch import TESTS
    from calibtrain.cli.trace_view import make_trace_view

    kind = "none" if as_json else "lines" if lines else "terminal" if _terminal() else "plain"
    limits = {} if given is not None else {"max_bytes": max_bytes, "max_tokens": max_tokens}
    with collected() as signals, make_trace_view(kind) as view:
        try:
            found = trace_run(
                place(run),
                prompt=prompt or "",
                text=given,
                head=head,
                seed=seed,
                sampling=sampling,
                save=save,
                replace=replace,
                rate=rate,
                tests=TESTS if alarms is Alarms.both else (alarms.value,),
                corpus=corpus,
                reference=reference,
                on_band=view.band,
                on_rows=view.rows,
                stopped=lambda: bool(signals) or view.closed is not None,
                say=say,
                **limits,
                **(
                    {} if given is not None else {"stop": tuple(stop or ()), "loop_stop": loop_stop}
                ),
            )
        except UserError as error:
            if not signals:
                raise
            say(str(error))
            raise typer.Exit(128 + signals[0]) from None
    if view.closed is not None:
        raise view.closed
    say_notes(found.notes)
    document = found.to_dict()
    if as_json:
        print_json(document)
    say(_said(document, found.seconds))
    if found.path is not None:
        say(f"trace: {found.path}")
    if signals:
        raise typer.Exit(128 + signals[0])


def _terminal() -> bool:
    return sys.stdout.isatty()


def given_text(name: str, option: str, limit: int) -> bytes:
    """Returns the text of a file, at most so many bytes of it; says what is left out.

    Args:
        name: of the file; - reads standard input.
        option: that names it.
        limit: most bytes that are read.

    Raises:
        UserError: where the file cannot be read.
    """
    if name == "-":
        data = sys.stdin.buffer.read()
    else:
        try:
            data = Path(name).read_bytes()
        except OSError as error:
            raise UserError(
                f"{option}: {name} cannot be read ({error.strerror or error})"
            ) from None
    if len(data) <= limit:
        return data
    say(
        f"note: {name}: the first {limit:,} of its {len(data):,} bytes are read; --max-bytes "
        "sets how many"
    )
    cut = data[:limit]
    try:
        data.decode()
    except UnicodeDecodeError:
        return cut
    return cut.decode(errors="ignore").encode()  # no character is cut in two


def _said(document: dict[str, Any], seconds: float) -> str:
    """Returns one line about a text that was traced."""
    tokens, size, alarms = document["tokens"], document["bytes"], len(document["alarms"])
    found = f"{document['finish_reason']}, {tokens:,} tokens, {size:,} bytes"
    if size:
        information, entropy = document["information_bits"], document["entropy_bits"]
        found += (
            f"; surprise {information / size:.3f}, entropy {entropy / size:.3f} bits a byte; "
            f"{size / seconds:,.0f} bytes/s, {tokens / seconds:,.0f} tokens/s"
        )
    return f"{found}; {alarms} alarm{'s' * (alarms != 1)}"

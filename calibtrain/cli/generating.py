"""The command `generate`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from calibtrain.cli.decoding import (
    BEAMS,
    SAMPLES,
    UTILITY,
    Decoding,
    Weights,
    check_decoding,
    check_utility,
    refuse,
    said,
    search,
    show_choices,
)
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
from calibtrain.cli.samplers import check_output, check_stops, given_only, sampling_of
from calibtrain.errors import UserError
from calibtrain.process.interruption import collected
from calibtrain.process.output import OutputError, print_json, print_now, say, say_notes
from calibtrain.storage.places import place


def generate(
    run: RunOrBucket,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="What the texts begin with; several give texts of each. Default none."),
    ] = None,
    prompt_file: Annotated[
        str | None,
        typer.Option(help="A file that holds the prompt, byte for byte; - reads standard input."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1, help="Texts of each prompt; default 1, and 32 to choose from with mbr."
        ),
    ] = None,
    decoding: Annotated[
        Decoding,
        typer.Option(
            help="Draw each token; take the most probable one; search for the most probable texts, "
            "alike or in groups that differ; or draw samples and choose the one most like the "
            "others."
        ),
    ] = Decoding.sample,
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
    beam_width: Annotated[
        int | None, typer.Option(help="Hypotheses of a beam; default 5, diverse 8.")
    ] = None,
    beam_groups: Annotated[
        int | None, typer.Option(help="Groups of a diverse beam; default 4.")
    ] = None,
    beam_diversity: Annotated[
        float | None,
        typer.Option(
            help="Nats that a token loses for each hypothesis of the groups before that chose it; "
            "default 1."
        ),
    ] = None,
    length_normalization: Annotated[
        float | None,
        typer.Option(help="A beam compares log p / tokens to this power; default 0."),
    ] = None,
    utility: Annotated[
        str | None,
        typer.Option(
            help="By which mbr compares texts: chrf (default), bleu, token-f1, jaccard or edit."
        ),
    ] = None,
    head: FittedHead = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Texts drawn side by side, at most; default 32.")
    ] = None,
    weights: Annotated[
        Weights | None,
        typer.Option(
            help="Type that weights are kept in; default that of the run. bfloat16 changes "
            "log-probabilities by about a hundredth of a nat (docs/generation.md)."
        ),
    ] = None,
    save: SaveTrace = None,
    replace: ReplaceTrace = False,
    lines: Annotated[
        bool,
        typer.Option(
            "--lines", help="Print the trace as JSON lines, one per token, while it is generated."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Generate text from a run's latest checkpoint, and trace what the model said of each token.

    A single text is printed as it is generated. Samplers compose in the order in which
    docs/generation.md lists them.

    Example: calibtrain generate runs/tiny --prompt "In the beginning" --samples 4
    """
    check_output(lines=lines, as_json=as_json, save=save, replace=replace)
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
    given = given_only(chosen)
    beam = {
        "beam_width": beam_width,
        "beam_groups": beam_groups,
        "beam_diversity": beam_diversity,
        "length_normalization": length_normalization,
    }
    check_decoding(decoding, {**beam, "utility": utility}, greedy=greedy)
    if decoding in BEAMS:
        drawing = {"seed": seed or None, "no_loop_stop": None if loop_stop else True}
        kept = {"save": save, "rows": rows, "weights": weights, "lines": lines or None}
        refuse(decoding, {**chosen, "stop": stop or None, **drawing, **kept})
        search(
            place(run),
            prompts_of(prompt, prompt_file),
            decoding,
            beam,
            shown=samples or 1,
            head=head,
            max_tokens=max_tokens,
            max_bytes=max_bytes,
            as_json=as_json,
        )
        return
    greedy = greedy or decoding is Decoding.greedy
    samples = samples or (SAMPLES if decoding is Decoding.mbr else 1)
    if decoding is Decoding.mbr:
        if lines:
            refuse(decoding, {"lines": lines})
        check_utility(utility, samples)
    if greedy and samples > 1:
        raise UserError(f"--samples: {samples} greedy texts would all be the same; leave it out")
    sampling = sampling_of(given, greedy=greedy)
    prompts = prompts_of(prompt, prompt_file)

    from calibtrain.generation.of_run import generate_from_run

    check_stops(stop)
    shown = _Shown(lines, alone=len(prompts) * samples == 1 and not as_json and not lines)
    with collected() as stopped:
        found = generate_from_run(
            place(run),
            prompts,
            head=head,
            samples=samples,
            seed=seed,
            sampling=sampling,
            weights=None if weights is None else weights.value,
            save=save,
            replace=replace,
            say=say,
            max_tokens=max_tokens,
            max_bytes=max_bytes,
            stop=tuple(stop or ()),
            loop_stop=loop_stop,
            rows=rows,
            on_piece=shown.piece if shown.alone else None,
            on_trace=shown.rows if lines else None,
            stopped=lambda: bool(stopped) or shown.closed is not None,
        )
    if shown.closed is not None:
        raise shown.closed
    say_notes(found.notes)
    if decoding is Decoding.mbr:
        show_choices(found, samples, utility or UTILITY, as_json=as_json)
    elif as_json:
        print_json(found.to_dict())
    elif shown.alone:
        print()
    elif not lines:
        for number, text in enumerate(found.texts):
            print(f"--- text {number}: {said(text)}")
            print(text.text)
    if shown.alone and not as_json and decoding is not Decoding.mbr:
        say(f"{said(found.texts[0])}")
    tokens = sum(text.tokens for text in found.texts)
    say(f"{tokens:,} tokens in {found.seconds:.1f} s, programs compiled included")
    if found.path is not None:
        say(f"trace: {found.path}")
    if stopped:
        raise typer.Exit(128 + stopped[0])


class _Shown:
    """Prints what is generated as it comes; remembers if standard output was closed meanwhile.

    Attributes:
        alone: whether one text is printed by its pieces.
        closed: the error of a standard output that cannot be written to.
    """

    def __init__(self, lines: bool, alone: bool):
        self.alone, self.closed = alone, None
        self._begun: set[int] = set()
        self._lines = lines

    closed: OutputError | None

    def piece(self, number: int, text: str) -> None:
        """Prints characters."""
        self._print(text)

    def rows(self, number: int, trace: Any, first: int) -> None:
        """Prints rows of a trace as JSON lines; those of the prompt come before the first."""
        from calibtrain.runs.traces import row_line

        first = first if number in self._begun else 0
        self._begun.add(number)
        self._print("".join(row_line(row) + "\n" for row in trace.table(first).to_pylist()))

    def _print(self, text: str) -> None:
        self.closed = self.closed or print_now(text)


def prompts_of(prompt: list[str] | None, file: str | None) -> list[str | bytes]:
    """Returns the prompts that options give; a file's is read byte for byte."""
    if file is None:
        return [*(prompt or [""])]
    if prompt:
        raise UserError("--prompt, --prompt-file: each gives the prompt; leave one of them out")
    if file == "-":
        return [sys.stdin.buffer.read()]
    path = Path(file)
    try:
        return [path.read_bytes()]
    except OSError as error:
        raise UserError(
            f"--prompt-file: {file} cannot be read ({error.strerror or error})"
        ) from None

"""The command `generate`."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from calibtrain.cli.completion import complete_fitted_head
from calibtrain.cli.options import AsJson, RunOrBucket
from calibtrain.errors import UserError
from calibtrain.process.interruption import end_now, handled
from calibtrain.process.output import OutputError, print_json, say, say_notes
from calibtrain.storage.places import place

_GREEDY_CANNOT = ("temperature", "top_k", "top_p", "min_p")
"""Samplers that leave the most probable token the most probable one."""


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
    samples: Annotated[int, typer.Option(min=1, help="Texts of each prompt.")] = 1,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Text i depends on the seed and i alone.")
    ] = 0,
    max_bytes: Annotated[
        int | None, typer.Option(min=1, help="Most bytes of a text; default 1000.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of a text; default any number.")
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="A text that ends a text and is not part of it; may be given again."),
    ] = None,
    loop_stop: Annotated[
        bool,
        typer.Option(
            help="End a text that repeats itself exactly: 3 copies of a pattern of at most 128 "
            "tokens, 48 tokens in all."
        ),
    ] = True,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Take the most probable token; draw none.")
    ] = False,
    temperature: Annotated[
        float | None, typer.Option(help="Divide log-probabilities by this; default 1.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Keep the k most probable tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Keep the most probable tokens of this mass (nucleus).")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Keep tokens of this share of the largest probability.")
    ] = None,
    typical: Annotated[
        float | None,
        typer.Option(help="Keep the tokens of this mass whose -log p is nearest to the entropy."),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(help="Multiply log p of tokens that the text holds by this; default 1."),
    ] = None,
    lookahead: Annotated[
        float | None,
        typer.Option(
            help="p(w) exp(-a H(next | w)), with this a (Braverman et al., Algorithm 2). A step "
            "reads every candidate."
        ),
    ] = None,
    lookahead_top: Annotated[
        int | None, typer.Option(help="Candidates of --lookahead; default 128.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="Name of a head fitted to the run by temperature fit; it divides the logits.",
            autocompletion=complete_fitted_head,
        ),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Texts drawn side by side, at most; default 32.")
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Keep the trace in the run's traces/NAME.parquet."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a trace of that name.")
    ] = False,
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
    if lines and as_json:
        raise UserError("--lines, --json: each takes standard output; leave one of them out")
    if replace and save is None:
        raise UserError("--replace: is for --save NAME; name the trace, or leave it out")
    if lookahead_top is not None and not lookahead:
        raise UserError("--lookahead-top: is for --lookahead; give it, or leave this out")
    chosen = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "typical": typical,
        "repetition_penalty": repetition_penalty,
        "lookahead": lookahead,
        "lookahead_top": lookahead_top,
    }
    given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    if greedy:
        if useless := [_option(name) for name in _GREEDY_CANNOT if name in given]:
            raise UserError(
                f"{', '.join(useless)}: does not change which token is the most probable, which "
                "--greedy takes; leave one of them out"
            )
        if samples > 1:
            raise UserError(
                f"--samples: {samples} greedy texts would all be the same; leave it out"
            )
    prompts = _prompts(prompt, prompt_file)

    from calibtrain.generation.of_run import generate_from_run
    from calibtrain.generation.samplers import Sampling

    try:
        sampling = Sampling(**given, greedy=greedy)
    except ValueError as error:
        raise UserError(f"--{str(error).replace('_', '-', 1)}") from None
    if stop and "" in stop:
        raise UserError("--stop: an empty text would end every text; leave it out")
    shown = _Shown(lines, alone=len(prompts) * samples == 1 and not as_json and not lines)
    with _stopping() as stopped:
        found = generate_from_run(
            place(run),
            prompts,
            head=head,
            samples=samples,
            seed=seed,
            sampling=sampling,
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
    if as_json:
        print_json(found.to_dict())
    elif shown.alone:
        print()
    elif not lines:
        for number, text in enumerate(found.texts):
            print(f"--- text {number}: {_said(text)}")
            print(text.text)
    if shown.alone and not as_json:
        say(f"{_said(found.texts[0])}")
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
        if self.closed is not None:
            return
        try:
            print(text, end="", flush=True)
        except OutputError as error:
            self.closed = error


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """Collects the signals that ask to end with what there is; a second one ends at once."""
    came: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if came and number == signal.SIGINT:
            end_now(number)
        came.append(number)

    with handled(handle, patience=lambda: None):
        yield came


def _prompts(prompt: list[str] | None, file: str | None) -> list[str | bytes]:
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


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _said(text: Any) -> str:
    """Returns one line about a text: why it ended, how long it is, and its rates."""
    size = f"{text.finish_reason}, {text.tokens:,} tokens, {text.bytes:,} bytes"
    if not text.bytes:
        return size
    information, entropy = text.information_bits / text.bytes, text.entropy_bits / text.bytes
    return f"{size}; information {information:.3f}, entropy {entropy:.3f} bits a byte"

"""Texts from prompts: text i of a request is a function of the seed and of i."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from calibtrain.generation.decoder import Decoder, Drawn, fetched
from calibtrain.generation.given import trace_of_ids, trace_of_parts
from calibtrain.generation.growing_text import GrowingText, Limits
from calibtrain.generation.growing_trace import GENERATED, GrowingTrace
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.samplers import ANCESTRAL, Sampling
from calibtrain.generation.windows import window_start
from calibtrain.runs.traces import TokenTrace

ROWS = 32
"""Texts that are drawn side by side, at most, by default."""
STEPS = 16
"""Tokens that are drawn before the host looks at them."""
BYTES = 1000
"""Most bytes of a text where no limit is given."""

OnPiece = Callable[[int, str], None]
"""Is told the number of a text and characters that were added to it."""
OnTrace = Callable[[int, TokenTrace, int], None]
"""Is told the number of a text, its trace so far, and from which token on that is new."""


@dataclasses.dataclass(frozen=True)
class GeneratedText:
    """A text that was generated, and what the model said of it.

    Attributes:
        text: the characters after the prompt; one that the prompt began is whole. A stop text is
            not in it.
        finish_reason: end (the model ended it), length, stop, loop or interrupted.
        prompt: as it was given.
        prompt_tokens: its ids, the document start included.
        prompt_tokens_seen: how many of them the model saw where the first token was drawn.
        tokens: that were drawn, the end of text and those of a stop text included.
        bytes: that they stand for.
        information_bits: -log2 of their probability under the model, before samplers.
        entropy_bits: the sum of the entropies of their distributions, before samplers.
        trace: one row per token, the prompt's first.
    """

    text: str
    finish_reason: str
    prompt: str | bytes = dataclasses.field(repr=False)
    prompt_tokens: int
    prompt_tokens_seen: int
    tokens: int
    bytes: int
    information_bits: float
    entropy_bits: float
    trace: TokenTrace = dataclasses.field(repr=False)

    @property
    def data(self) -> bytes:
        """The exact bytes of the tokens that were drawn."""
        pieces = zip(self.trace.pieces, self.trace.source, strict=True)
        return b"".join(piece for piece, source in pieces if source == GENERATED)


def generate(
    model: LanguageModel,
    prompts: Sequence[str | bytes],
    *,
    samples: int = 1,
    seed: int = 0,
    sampling: Sampling = ANCESTRAL,
    max_tokens: int | None = None,
    max_bytes: int | None = None,
    stop: Sequence[str] = (),
    loop_stop: bool = True,
    on_piece: OnPiece | None = None,
    on_trace: OnTrace | None = None,
    rows: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> list[GeneratedText]:
    """Returns `samples` texts for each prompt, in the order of the prompts.

    Text i (counted over all of them) is a function of the model, its prompt, the seed and i: to the
    bit, whatever the other rows hold. Another number of rows, or another length of the cache (the
    longest prompt and limit, rounded up), is another program, whose rounding differs by about 1e-6
    nats; only a draw that lies so near to the edge between two tokens could then come out
    otherwise.

    Args:
        model: what is drawn from.
        prompts: texts, or bytes, which may end inside a character. An empty one begins a document.
        samples: texts of each prompt.
        seed: of the request.
        sampling: how tokens are chosen.
        max_tokens: most tokens of a text.
        max_bytes: most bytes of a text; `BYTES` where neither limit is given.
        stop: texts that end a text; they are not part of it.
        loop_stop: whether a text ends when it repeats itself exactly (`loops.LoopRule`).
        on_piece: is told of complete characters as they come.
        on_trace: is told of tokens as they come, with the trace up to them.
        rows: texts that are drawn side by side; rounded up to what the devices share evenly.
        stopped: is asked now and then whether to end at once, with what there is.

    Raises:
        ValueError: for a number that is not allowed, or an empty stop text.
        UserError: for a prompt that the vocabulary cannot spell.
    """
    for name, value in (("samples", samples), ("max_tokens", max_tokens), ("rows", rows)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: {value} is not allowed; at least 1")
    if max_bytes is not None and max_bytes < 1:
        raise ValueError(f"max_bytes: {max_bytes} is not allowed; at least 1")
    if "" in stop:
        raise ValueError("stop: an empty text would end every text; leave it out")
    if max_tokens is None and max_bytes is None:
        max_bytes = BYTES
    limits = Limits(max_tokens, max_bytes, tuple(text.encode() for text in stop), loop_stop)
    starts = [model.prompt_ids(prompt) for prompt in prompts]
    texts = [
        GrowingText(
            number,
            starts[number // samples],
            model.tokenizer.piece_bytes,
            model.tokenizer.eos_id,
            limits,
        )
        for number in range(len(prompts) * samples)
    ]
    traces: dict[int, GrowingTrace] = {}  # by the text's number, once its prompt is read

    def tell(text: GrowingText, count: int) -> None:
        if on_trace is not None and count:
            trace = traces[text.number].whole
            on_trace(text.number, trace, len(trace) - count)
        if on_piece is not None and (piece := text.piece()):
            on_piece(text.number, piece)

    batch = min(rows or ROWS, max(1, len(texts)))
    _draw(
        model, texts, traces, sampling=sampling, seed=seed, rows=batch, tell=tell, stopped=stopped
    )
    return [
        _generated(model, text, prompts[text.number // samples], traces[text.number].whole)
        for text in texts
    ]


def _draw(
    model: LanguageModel,
    texts: Sequence[GrowingText],
    traces: dict[int, GrowingTrace],
    *,
    sampling: Sampling,
    seed: int,
    rows: int,
    tell: Callable[[GrowingText, int], None],
    stopped: Callable[[], bool],
) -> None:
    """Draws all texts, `rows` at a time; a row that is done takes the next text."""
    if not texts:
        return
    longest = max(len(text.ids) + (text.room or model.context) for text in texts)
    length = min(model.context, _cache_length(longest))
    decoder = Decoder(model, sampling, rows=rows, length=length, seed=seed, steps=STEPS)
    waiting = list(reversed(texts))
    drawn: list[tuple[GrowingText, int]] = []  # and how many tokens, of which nobody is told yet
    pieces = model.tokenizer.piece_bytes
    held: list[GrowingText | None] = [None] * decoder.rows
    ends = [0] * decoder.rows  # the token at which the window of each row is full
    while not stopped():
        placed: dict[int, GrowingText] = {}
        for row, text in enumerate(held):
            if (text is None or text.reason) and waiting:
                held[row] = placed[row] = waiting.pop()
            elif text is not None and not text.reason and len(text.ids) > ends[row]:
                placed[row] = text
        if placed:
            own = list(placed.values())
            starts = [window_start(len(text.ids) - 1, model.context) for text in own]
            # a prompt that is read whole is scored while it is read
            scored = [
                not start and text.number not in traces
                for text, start in zip(own, starts, strict=True)
            ]
            said = decoder.place(
                list(placed),
                [np.array(text.ids[start:]) for text, start in zip(own, starts, strict=True)],
                [text.number for text in own],
                [text.drawn for text in own],
                [np.array(text.ids) for text in own],
                scored,
            )
            for text, statistics in zip(own, said, strict=True):
                if statistics is not None:
                    ids = np.array(text.ids)
                    prompt = trace_of_parts(model, text.number, ids, [(0, *statistics)])
                    traces[text.number] = GrowingTrace(text.number, prompt, pieces)
            _read_prompts(model, own, traces)
            for row, start in zip(placed, starts, strict=True):
                ends[row] = start + model.context
        going = {row: text for row, text in enumerate(held) if text and not text.reason}
        if not going:
            break
        room = np.zeros(decoder.rows, np.int32)
        for row, text in going.items():
            left = ends[row] + 1 - len(text.ids)
            room[row] = left if text.room is None else min(left, text.room)
        found = decoder.advance(room)
        for text, count in drawn:  # while the device draws the next
            tell(text, count)
        found, drawn = fetched(found), []
        for row, text in going.items():
            tokens = found.tokens[:, row]
            count = text.read(tokens[tokens >= 0])
            traces[text.number].add(_rows_of(found, row, count))
            drawn.append((text, count))
    for text, count in drawn:
        tell(text, count)
    _read_prompts(model, texts, traces)  # of those that had no turn
    for text in texts:
        if not text.reason:
            text.reason = "interrupted"
            tell(text, 0)


def _cache_length(tokens: int) -> int:
    """Returns the length of a cache for so many tokens: few lengths, as each is a program.

    All places of a cache are read for each token, so at most a quarter is left empty, or 32.
    """
    step = max(32, 1 << max(0, tokens.bit_length() - 3))
    return -(-tokens // step) * step


def _read_prompts(
    model: LanguageModel, texts: Sequence[GrowingText], traces: dict[int, GrowingTrace]
) -> None:
    """Begins the traces that texts do not have yet."""
    left = [text for text in texts if text.number not in traces]
    if not left:
        return
    prompts = {tuple(text.ids): np.array(text.ids) for text in left}
    found = dict(zip(prompts, trace_of_ids(model, list(prompts.values()), rows=1), strict=True))
    for text in left:
        prompt = found[tuple(text.ids)]
        traces[text.number] = GrowingTrace(text.number, prompt, model.tokenizer.piece_bytes)


def _rows_of(found: Drawn, row: int, count: int) -> Drawn:
    """Returns the first tokens of a row."""
    statistics = type(found.statistics)(*(x[:count, row] for x in found.statistics))
    tokens, chosen, heat = (x[:count, row] for x in found[:3])
    return Drawn(tokens, chosen, heat, statistics)


def _generated(
    model: LanguageModel, text: GrowingText, prompt: str | bytes, trace: TokenTrace
) -> GeneratedText:
    """Returns a text that is over, with its trace."""
    count = len(text.ids) - text.drawn
    return GeneratedText(
        text=text.text,
        finish_reason=text.reason,
        prompt=prompt,
        prompt_tokens=count,
        prompt_tokens_seen=count - window_start(count - 1, model.context),
        tokens=text.drawn,
        bytes=len(text.data),
        information_bits=_bits(-trace.log_probability[count - 1 :]),
        entropy_bits=_bits(trace.entropy[count - 1 :]),
        trace=trace,
    )


def _bits(nats: np.ndarray) -> float:
    return float(np.sum(nats, dtype=np.float64)) / math.log(2)

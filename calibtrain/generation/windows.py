"""Which of its last tokens a model sees: the windows of an evaluation, met as a text grows.

A model reads a text of any length by windows of its context that overlap by half (as
`data.batches.windows` lays them out): when a window is full, its last half is read again and is the
beginning of the next. So what is generated is predicted as text is scored.
"""

from collections.abc import Sequence
from typing import NamedTuple


def window_start(slot: int, context: int) -> int:
    """Returns the first token that is seen where token number `slot` is read.

    Example:
        >>> [window_start(slot, context=8) for slot in (0, 7, 8, 11, 12)]
        [0, 0, 4, 4, 8]
    """
    if slot < context:
        return 0
    stride = max(1, context // 2)
    return (1 + (slot - context) // stride) * stride


class Window(NamedTuple):
    """A stretch of a text that a model reads at once.

    Attributes:
        text: number of the text.
        start: the first token that is seen.
        slot: the first token whose prediction counts; those before it are only seen.
        end: one past the last token that is seen.
    """

    text: int
    start: int
    slot: int
    end: int


def text_windows(slots: Sequence[int], context: int) -> list[Window]:
    """Returns the windows by which texts are read, every slot once.

    Args:
        slots: predictions of each text: its tokens, the document start not counted.
        context: tokens that the model sees.

    Example:
        >>> text_windows([3, 10], context=8)[1:]
        [Window(text=1, start=0, slot=0, end=8), Window(text=1, start=4, slot=8, end=10)]
    """
    found = []
    for text, count in enumerate(slots):
        slot = 0
        while slot < count:
            start = window_start(slot, context)
            end = min(count, start + context)
            found.append(Window(text, start, slot, end))
            slot = end
    return found

"""Which of its last tokens a model sees: the windows of an evaluation, met as a text grows.

A model reads a text of any length by windows of its context that overlap by half (as
`data.batches.windows` lays them out): when a window is full, its last half is read again and is the
beginning of the next. So what is generated is predicted as text is scored.
"""


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

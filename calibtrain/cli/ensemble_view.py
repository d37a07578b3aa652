"""What `ensemble` shows in a terminal: figures beside its members', and who proposed what."""

from collections.abc import Mapping
from typing import Any

from calibtrain.cli.analysing import print_rows


def show_scores(found: Any) -> None:
    """Prints a row for the ensemble and for each member, with the differences."""
    rows = [_row("ensemble", found)]
    rows += [_row(each.run, each, each.difference) for each in found.members]
    size = int(found.evaluation.bytes)
    print_rows(
        f"{size:,} bytes of {found.evaluation.documents:,} "
        "documents; the ensemble less each member",
        "",
        ("bits/byte", "byte ECE", "difference in bits/byte", "in ECE"),
        rows,
    )


def _row(name: str, found: Any, difference: Mapping[str, Any] | None = None) -> list[str]:
    own = (found.bits_per_byte, found.ece)
    figures = ["-" if value is None else f"{value:.4f}" for value in own]
    if difference is None:
        return [name, *figures, "", ""]
    apart = (difference["bits_per_byte"], difference["ece"])
    ends = [f"{each.estimate:+.4f} [{each.lower:+.4f}, {each.upper:+.4f}]" for each in apart]
    return [name, *figures, *ends]


def text_line(text: Any) -> str:
    """Returns one line about a text: why it ended, its length, and its information."""
    each = ", ".join(f"{name} {bits:.1f}" for name, bits in text.members.items())
    return (
        f"{text.finish_reason}, {text.bytes:,} bytes; information {text.information_bits:.1f} bits "
        f"({each})"
    )


def show_steps(text: Any) -> None:
    """Prints a row for each place where a text went on: what each member proposed there."""
    rows = []
    for step in text.steps:
        chosen = "end" if step.ended else quoted_bytes(step.chosen)
        cells = []
        for each in step.proposals:
            proposed = "end" if not each.proposed else quoted_bytes(each.proposed)
            cells.append(
                "stalled"
                if each.stalled
                else f"{proposed} {each.probability:.3f}, weight {each.weight:.2f}"
            )
        rows.append([str(step.byte_offset), chosen, *cells])
    print_rows(
        "what was chosen at each byte, and what each member proposed there, with the probability "
        "that it gave",
        "byte",
        ("chosen", *text.members),
        rows,
    )


def quoted_bytes(data: bytes) -> str:
    r"""Returns bytes as a quoted text, in which bytes that are not UTF-8 are escapes.

    Example:
        >>> print(quoted_bytes("a\n\u3042".encode()[:-1]), quoted_bytes(b"'"))
        'a\n\xe3\x81' "'"
    """
    if not data:
        return ""
    text = data.decode(errors="surrogateescape")
    quote = repr(text)[0]
    inside = "".join(_inside(character, quote) for character in text)
    return f"{quote}{inside}{quote}"


def _inside(character: str, quote: str) -> str:
    """Returns a character as it stands between quotes; one that stands for a byte as its escape."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return f"\\{quote}" if character == quote else repr(character)[1:-1]

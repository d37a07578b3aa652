"""Bytes of tokens in JSON (text where they are UTF-8, else hexadecimal), and how they are shown."""

from collections.abc import Mapping
from typing import Any


def spelled_bytes(name: str, data: bytes) -> dict[str, str | None]:
    r"""Returns bytes as a text; where they are not UTF-8, it is null and NAME_hex has them.

    Example:
        >>> spelled_bytes("piece", b"a"), spelled_bytes("piece", b"\xc3")
        ({'piece': 'a'}, {'piece': None, 'piece_hex': 'c3'})
    """
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {name: None, f"{name}_hex": data.hex()}


def spelled_piece(row: Mapping[str, Any]) -> str:
    r"""Returns the piece of a token as it is shown; bytes that are not UTF-8 are escapes.

    Args:
        row: has the keys that `spelled_bytes("piece", data)` returns.

    Example:
        >>> print(spelled_piece({"piece": "a\n"}))
        a\n
        >>> print(spelled_piece({"piece": None, "piece_hex": "e381"}))
        \xe3\x81
    """
    if row["piece"] is not None:
        return repr(row["piece"])[1:-1]
    return "".join(f"\\x{byte:02x}" for byte in bytes.fromhex(row["piece_hex"]))

"""Signatures: written, read back, and compared."""

import pytest

from calibtrain.metrics import Signature, differences, parse_signature

TEXT = (
    "event:token|conf:max|bins:15|scheme:width|edges:left-open|T:1|"
    "corpus:1f0a93c2|tok:77ab01de|v:0.1.0"
)
SIGNATURE = Signature(corpus="1f0a93c2" + "0" * 56, tokenizer="77ab01de", version="0.1.0")


def test_a_signature_is_written_as_documented() -> None:
    assert str(SIGNATURE) == TEXT


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 1.0000000000000002},
        {"temperature": 0.1 + 0.2},
        {"temperature": "mlp-1f0a93c2"},
        {"temperature": 2},
        {"bins": None, "scheme": "kernel"},
        {"scheme": "mass", "event": "byte"},
        {"confidence": "top5", "edges": "right-open"},
    ],
)
def test_what_is_written_is_read_back(changes: dict[str, object]) -> None:
    signature = Signature(corpus="1f0a93c2", tokenizer="77ab01de", version="0.1.0", **changes)
    assert parse_signature(str(signature)) == signature
    assert differences(signature, parse_signature(str(signature))) == {}


def test_differences_are_told_by_key() -> None:
    other = Signature("00000000", "77ab01de", "0.1.0", bins=10)
    assert differences(SIGNATURE, other) == {
        "bins": ("15", "10"),
        "corpus": ("1f0a93c2", "00000000"),
    }


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (TEXT.replace("|T:1", ""), "signature"),
        (TEXT + "|x:1", "signature"),
        (TEXT.replace("event:token|conf:max", "conf:max|event:token"), "signature"),
        ("", "signature"),
        (TEXT.replace("bins:15", "bins:0"), "bins"),
        (TEXT.replace("bins:15", "bins:-3"), "bins"),
        (TEXT.replace("T:1", "T:0"), "temperature"),
        (TEXT.replace("T:1", "T:nan"), "temperature"),
        (TEXT.replace("1f0a93c2", "1F0A"), "corpus"),
        (TEXT.replace("max", "m x"), "confidence"),
        (TEXT.replace("left-open", ""), "edges"),
    ],
)
def test_what_is_no_signature_is_refused_by_name(text: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}:"):
        parse_signature(text)

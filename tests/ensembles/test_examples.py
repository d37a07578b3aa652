"""The examples in docstrings of the room."""

import doctest
import importlib
import pkgutil

import pytest

import calibtrain.ensembles
from calibtrain.cli import ensemble_view
from calibtrain.runs import ensemble_traces, traces

MODULES = [each.name for each in pkgutil.iter_modules(calibtrain.ensembles.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    module = importlib.import_module(f"calibtrain.ensembles.{name}")
    assert doctest.testmod(module).failed == 0


def test_rows_of_a_trace_are_a_table() -> None:
    assert doctest.testmod(ensemble_traces).failed == 0
    assert doctest.testmod(traces).failed == 0


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("あ".encode()[:2], r"'\xe3\x81'"),
        (b"\n\t", r"'\n\t'"),
        (b"\\xe3", r"'\\xe3'"),  # four characters of text, and not a byte
        (b"it's", '"it\'s"'),
        (b"'\"", r"""'\'"'"""),
        (b"", ""),
    ],
)
def test_bytes_are_shown_as_a_literal_of_python(data: bytes, shown: str) -> None:
    assert ensemble_view.quoted_bytes(data) == shown


def test_examples_of_what_a_terminal_shows_hold() -> None:
    assert doctest.testmod(ensemble_view).failed == 0

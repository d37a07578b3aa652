"""A comparison that is stopped keeps the heads that it fitted, and the next one goes on."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from calibtrain.fitting.head import Recipe
from calibtrain.posthoc.compare import compare_heads
from calibtrain.process.interruption import _watch

QUICK = Recipe(steps=2, tokens=256, evaluations=1)


class Stopped(BaseException):
    """Stands for a signal."""


@pytest.mark.long
def test_fitted_heads_survive_a_stop(
    tmp_path: Path, finished_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    left: list[str] = []

    def compared(cache: str, stop: str = "never") -> tuple[dict[str, Any], list[str]]:
        said: list[str] = []

        def stage(text: str) -> None:
            if text.startswith(stop):
                left.append(_watch.leaving[-1]())
                raise Stopped

        found = compare_heads(
            run,
            heads=["global", "linear"],
            recipe=QUICK,
            limit=700,
            cache=tmp_path / cache,
            say=said.append,
            stage=stage,
        )
        return found, [text for text in said if "already fitted" in text]

    for stop in ("head 1 of 2: global", "head 2 of 2: linear", "measuring"):
        with pytest.raises(Stopped):
            compared("cache", stop)
    assert left[0] == "; no head was fitted yet"
    assert "; 1 of 2 heads are fitted and kept" in left[1]
    assert "; 2 of 2 heads are fitted and kept" in left[2]
    found, again = compared("cache")
    assert [text.partition(":")[0] for text in again] == ["global", "linear"]
    anew, none = compared("another cache")
    assert none == []
    for one, other in zip(found["corpora"][0]["rows"], anew["corpora"][0]["rows"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}

    (damaged,) = tmp_path.glob("cache/fitted/*/linear/parameters.npz")
    damaged.write_bytes(b"no archive")
    repaired, still = compared("cache")
    assert [text.partition(":")[0] for text in still] == ["global"]
    assert "it is fitted again" in caplog.text
    assert repaired["corpora"][0]["rows"][2]["nll"] == found["corpora"][0]["rows"][2]["nll"]

"""Parts of a work, shared out over devices: simulated ones, each with a thread."""

import threading
from collections.abc import Sequence

import jax
import pytest

from calibtrain.parallel.each_device import GivenUp, Turn, on_each_device

DEVICES = [jax.devices()[0]] * 3


def test_results_come_in_the_order_of_their_parts_from_threads_of_their_own() -> None:
    def work(device: jax.Device, parts: Sequence[int], turn: Turn) -> list[tuple[int, int]]:
        return [(part, threading.get_ident()) for part in parts]

    found = on_each_device(work, range(8), DEVICES)
    assert [part for part, _ in found] == list(range(8))
    assert [thread for _, thread in found[:3]] == [thread for _, thread in found[3:6]]
    alone = on_each_device(work, range(8), DEVICES[:1])
    assert {thread for _, thread in alone} == {threading.get_ident()}
    assert on_each_device(work, [], DEVICES) == []


def test_what_one_share_raises_ends_the_others_and_is_raised() -> None:
    ended = []

    def work(device: jax.Device, parts: Sequence[int], turn: Turn) -> list[int]:
        if 1 in parts:
            raise ValueError("the second share")
        try:
            while True:
                with turn:
                    pass
        except GivenUp:
            ended.append(parts[0])
            raise

    with pytest.raises(ValueError, match="the second share"):
        on_each_device(work, range(3), DEVICES)
    assert sorted(ended) == [0, 2]

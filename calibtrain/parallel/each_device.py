"""Work in parts that do not need each other, shared out over the devices of this process."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax

Part = TypeVar("Part")
Result = TypeVar("Result")


class GivenUp(Exception):
    """Another device's share of the work has failed, so that this one's is not wanted."""


class Turn:
    """What the threads of a piece of work share: one at a time, and none after one has failed."""

    def __init__(self) -> None:
        self.ended = False
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()
        if self.ended:
            self._lock.release()
            raise GivenUp

    def __exit__(self, *raised: object) -> None:
        self._lock.release()


def on_each_device(
    work: Callable[[jax.Device, Sequence[Part], Turn], Sequence[Result]],
    parts: Sequence[Part],
    devices: Sequence[jax.Device] | None = None,
) -> list[Result]:
    """Returns the results of all parts, in their order; part i is done by device i modulo n.

    A device has a thread, in which it is the default one. The host's work for one device goes on
    while another computes.

    Args:
        work: from a device, its parts and the turn to a result of each part. Whatever touches what
            the threads share is done `with turn:`.
        parts: the work.
        devices: default: those of this process.

    Raises:
        Exception: the first that any share raised; the others end at their next turn.

    Example:
        >>> on_each_device(lambda device, parts, turn: [part * 2 for part in parts], [1, 2, 3])
        [2, 4, 6]
    """
    devices = (devices or jax.local_devices())[: len(parts)]
    turn = Turn()
    if len(devices) < 2:
        return list(work(jax.local_devices()[0], parts, turn)) if parts else []

    def share(number: int) -> Sequence[Result]:
        try:
            with jax.default_device(devices[number]):
                return work(devices[number], parts[number :: len(devices)], turn)
        except BaseException:
            turn.ended = True
            raise

    results: dict[int, Result] = {}
    with ThreadPoolExecutor(len(devices)) as pool:
        waiting = [pool.submit(share, number) for number in range(len(devices))]
        try:
            failed = [raised for each in waiting if (raised := each.exception()) is not None]
        finally:  # also where a signal ends the wait
            turn.ended = True
    for raised in sorted(failed, key=lambda raised: isinstance(raised, GivenUp)):
        raise raised
    for number, each in enumerate(waiting):
        for place, result in enumerate(each.result()):
            results[number + place * len(devices)] = result
    return [results[number] for number in range(len(parts))]

"""A long step is waited in for a signal before the device is given the next one."""

import signal
import threading
import time

import pytest

from calibtrain.training.stopping import Stop, stop_signals


def stepping(stop: Stop, seconds: float) -> None:
    """Steps that take so long, of which the last is under way."""
    for _ in range(3):
        stop.step()
        time.sleep(seconds)
    stop.step()


def waited(stop: Stop) -> float:
    began = time.monotonic()
    stop.wait_in_step()
    return time.monotonic() - began


def test_the_next_step_is_held_back_for_most_of_a_long_one() -> None:
    stop = Stop()
    stepping(stop, 0.15)
    assert waited(stop) >= 0.1  # 0.9 of the shortest step; at least 0.15 s were slept in each


def test_short_steps_and_what_is_not_a_step_are_not_waited_in() -> None:
    stop = Stop()
    stepping(stop, 0.0)
    assert waited(stop) < 0.1
    stepping(stop, 0.2)  # by chance: others were short
    assert waited(stop) < 0.1
    stop.begin()
    stepping(stop, 0.15)
    stop.pause()
    assert waited(stop) < 0.1


def test_steps_that_became_shorter_are_held_back_less_and_less() -> None:
    """After steps of 0.3 s, the device is done each time before the next one is dispatched."""
    stop = Stop()
    stepping(stop, 0.3)
    held = []
    for _ in range(4):
        held.append(waited(stop))
        stop.step()
    assert held == sorted(held, reverse=True)
    assert held[-1] < 0.9 * held[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait(number: signal.Signals) -> None:
    with stop_signals() as stop:
        stepping(stop, 0.4)
        main = threading.get_ident()
        threading.Timer(0.05, lambda: signal.pthread_kill(main, number)).start()
        assert waited(stop) < 0.3
        assert stop.is_set()
        assert waited(stop) < 0.1

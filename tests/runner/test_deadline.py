"""What a deadline lets in."""

from __future__ import annotations

import time

from blendrun.runner.deadline import Deadline


def paced(seconds_left: float) -> Deadline:
    """A machine on which a request waits 2,000 s and takes 100 s a token: the test itself takes no time beside it."""
    deadline = Deadline(time.monotonic() + seconds_left)
    for tokens in range(10, 110, 10):
        deadline.ended(tokens, 2000.0 + 100.0 * tokens)
    return deadline


def test_a_request_is_let_in_when_it_will_be_done() -> None:
    deadline = paced(20_000.0)
    assert deadline.fits(150)
    assert not deadline.fits(200)


def test_one_of_unknown_length_counts_as_the_mean() -> None:
    assert paced(8500.0).fits(0)
    assert not paced(6500.0).fits(0)


def test_before_the_pace_is_known_all_are_let_in_until_the_end() -> None:
    assert Deadline(time.monotonic() + 1000.0).fits(10_000)
    assert not Deadline(time.monotonic() - 0.1).fits(1)


def test_answers_of_one_length_are_scaled() -> None:
    deadline = Deadline(time.monotonic() + 5000.0)
    for _ in range(10):
        deadline.ended(4, 3000.0)
    assert deadline.fits(5)
    assert not deadline.fits(8)

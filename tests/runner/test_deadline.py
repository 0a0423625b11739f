"""What a deadline lets in."""

from __future__ import annotations

import time

from blendrun.runner.deadline import Deadline


def paced(seconds_left: float) -> Deadline:
    """A machine on which a request waits 2 s and takes 0.1 s a token."""
    deadline = Deadline(time.monotonic() + seconds_left)
    for tokens in range(10, 110, 10):
        deadline.ended(tokens, 2.0 + 0.1 * tokens)
    return deadline


def test_a_request_is_let_in_when_it_will_be_done():
    deadline = paced(20.0)
    assert deadline.fits(150)
    assert not deadline.fits(200)


def test_one_of_unknown_length_counts_as_the_mean():
    assert paced(8.5).fits(0)
    assert not paced(6.5).fits(0)


def test_before_the_pace_is_known_all_are_let_in_until_the_end():
    assert Deadline(time.monotonic() + 1.0).fits(10_000)
    assert not Deadline(time.monotonic() - 0.1).fits(1)


def test_answers_of_one_length_are_scaled():
    deadline = Deadline(time.monotonic() + 5.0)
    for _ in range(10):
        deadline.ended(4, 3.0)
    assert deadline.fits(5)
    assert not deadline.fits(8)

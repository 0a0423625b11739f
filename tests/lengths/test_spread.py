"""Distributions of lengths: they have the means, and the shape of what was seen."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from blendrun.lengths.base import Lengths
from blendrun.lengths.estimate import estimate
from blendrun.lengths.evidence import Samples
from blendrun.names import LengthMode
from blendrun.simulate.draw import draw_outputs
from tests.lengths.small_tree import make_prompts, make_tree

COUNT = 4_000
UNITS = [[number] for number in range(COUNT)]


def learned(tokens: list[float]) -> Lengths:
    """Of 4,000 prompts of one kind of at most 4,096 tokens, of which the first were answered in so many."""
    prompts = make_prompts(UNITS, bound=[4_096] * COUNT)
    seen = Samples(np.arange(len(tokens)), np.array(tokens), np.ones(len(tokens), dtype=np.bool_))
    return estimate(prompts, make_tree(UNITS), samples=seen)


def test_a_heavy_tail_that_was_seen_is_drawn() -> None:
    # Nine in ten are short, one in ten takes all it may: a log-normal of these moments knows neither.
    lengths = learned([20.0] * 180 + [4_096.0] * 20)
    drawn = draw_outputs(lengths)[200:]
    assert (drawn > 3_500).mean() == pytest.approx(0.1, abs=0.03)
    assert (drawn < 60).mean() == pytest.approx(0.9, abs=0.05)
    assert drawn.mean() == pytest.approx(lengths.mean[200:].mean(), rel=0.1)


def test_quantiles_rise_and_stay_within_the_bound() -> None:
    lengths = learned([10.0, 40.0, 90.0, 1_000.0])
    levels = [lengths.quantile(np.full(COUNT, level)) for level in (0.0, 0.1, 0.5, 0.9, 1.0)]
    for low, high in pairwise(levels):
        assert (low <= high).all()
    assert (levels[-1] <= lengths.bound).all()
    assert levels[2][100] < lengths.mean[100] < levels[3][100]


def test_unseen_lengths_are_drawn_from_the_prior() -> None:
    lengths = estimate(make_prompts(UNITS, bound=[256] * COUNT), make_tree(UNITS), mode=LengthMode.PRIOR)
    drawn = draw_outputs(lengths)
    assert drawn.mean() == pytest.approx(lengths.mean.mean(), rel=0.05)
    # Prose beside labels: a third reaches its bound.
    assert 0.2 < (drawn == 256).mean() < 0.4


def test_without_a_spread_lengths_are_log_normal() -> None:
    mean = np.full(COUNT, 100.0)
    known = estimate(make_prompts(UNITS, bound=[100_000] * COUNT), make_tree(UNITS))
    lengths = Lengths(mean, 2 * mean**2, known.bound, known.source)
    assert lengths.quantile(np.full(COUNT, 0.5))[0] == pytest.approx(100 / np.sqrt(2), rel=0.01)
    assert draw_outputs(lengths).mean() == pytest.approx(100, rel=0.05)


def test_some_of_the_prompts_keep_their_distributions() -> None:
    lengths = learned([10.0, 40.0, 90.0, 1_000.0])
    numbers = np.array([3, 100, 2_000])
    level = np.full(COUNT, 0.8)
    assert lengths.take(numbers).quantile(level[:3]).tolist() == lengths.quantile(level)[numbers].tolist()

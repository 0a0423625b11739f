"""The prior: all of a small bound, a few hundred tokens of an open one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.lengths.prior import prior_moments, prior_quantile


def prior(*bounds: int) -> tuple[np.ndarray, np.ndarray]:
    return prior_moments(np.array(bounds, dtype=np.int32))


def test_one_token_is_one_token_and_none_is_none() -> None:
    mean, square = prior(1, 0)
    assert mean == pytest.approx([1, 0])
    assert square == pytest.approx([1, 0])


def test_a_label_of_a_few_tokens_is_nearly_its_bound() -> None:
    mean, _ = prior(2, 3, 4)
    assert (mean >= 0.9 * np.array([2, 3, 4])).all()


def test_an_open_bound_promises_a_few_hundred_tokens() -> None:
    mean, square = prior(4_096, 131_072, 2**31 - 1)
    assert ((mean > 200) & (mean < 500)).all()
    assert (square < 1000**2).all()


@given(st.lists(st.integers(0, 2**31 - 1), min_size=2, max_size=30))
def test_moments_are_possible_and_grow_with_the_bound(bounds: list[int]) -> None:
    mean, square = prior(*sorted(bounds))
    top = np.sort(bounds)
    assert ((mean >= 0) & (mean <= top)).all()
    assert ((square >= mean**2) & (square <= mean * top)).all()
    assert (np.diff(mean) >= -1e-6).all()


def test_it_is_the_sum_over_all_lengths() -> None:
    lengths = np.arange(1, 51)
    survive = 0.6 * (15 / 16) ** (lengths - 1) + 0.4 * (799 / 800) ** (lengths - 1)
    mean, square = prior(50)
    assert mean[0] == pytest.approx(survive.sum())
    assert square[0] == pytest.approx(((2 * lengths - 1) * survive).sum())


@pytest.mark.parametrize("bound", [1, 16, 256, 4_096, 131_072])
def test_quantiles_average_to_the_mean(bound: int) -> None:
    level = (np.arange(20_000) + 0.5) / 20_000
    tokens = prior_quantile(level, np.full(len(level), bound, dtype=np.int32))
    assert (np.diff(tokens) >= 0).all()
    assert tokens.max() <= bound
    assert tokens.mean() == pytest.approx(prior(bound)[0][0], rel=0.02)

"""The Kaplan-Meier curves: equal to a step-by-step estimator and to closed forms, for all groups at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.lengths.survival import Curves, Observations, kaplan_meier

LIMIT = 1000.0
GUESS = 100.0

answers = st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=1, max_size=25)


def curves(*groups: list[tuple[int, bool]], limit: float = LIMIT, guess: float = GUESS) -> Curves:
    rows = [(group, tokens, finished) for group, part in enumerate(groups) for tokens, finished in part]
    group, tokens, finished = (np.array(column) for column in zip(*rows, strict=True))
    seen = Observations(group, tokens.astype(np.float64), finished.astype(bool), np.ones(len(rows)))
    return kaplan_meier(seen, np.full(len(groups), limit), np.full(len(groups), guess))


def step_by_step(answers: list[tuple[int, bool]]) -> tuple[list[tuple[float, float]], float]:
    """Masses at each length where an answer ended, and what is left beyond them."""
    alive, mass = 1.0, []
    for length in sorted({tokens for tokens, finished in answers if finished}):
        at_risk = sum(tokens >= length for tokens, _ in answers)
        ended = sum(tokens == length and finished for tokens, finished in answers)
        mass.append((float(length), alive * ended / at_risk))
        alive *= 1 - ended / at_risk
    return mass, alive


@given(st.lists(answers, min_size=1, max_size=4))
def test_moments_are_those_of_the_textbook_curve_up_to_the_longest_answer(groups: list[list[tuple[int, bool]]]) -> None:
    found = curves(*groups)
    for group, part in enumerate(groups):
        mass, left = step_by_step(part)
        longest = max(tokens for tokens, _ in part)
        # What is left lies beyond the longest answer; where exactly is the tail's own business, tested below.
        place = np.zeros(1) + longest
        beyond, beyond_square = found.beyond(np.array([group]), np.nextafter(place, -1.0))
        if left > 1e-9 and not any(tokens == longest and finished for tokens, finished in part):
            assert found.mean[group] == pytest.approx(sum(m * x for x, m in mass) + left * beyond[0])
            assert found.square[group] == pytest.approx(sum(m * x**2 for x, m in mass) + left * beyond_square[0])
        elif left <= 1e-9:
            assert found.mean[group] == pytest.approx(sum(m * x for x, m in mass))


@given(st.lists(st.integers(0, 60), min_size=1, max_size=25))
def test_without_running_answers_they_are_the_sample_s_moments(lengths: list[int]) -> None:
    found = curves([(length, True) for length in lengths])
    assert found.mean[0] == pytest.approx(np.mean(lengths))
    assert found.square[0] == pytest.approx(np.mean(np.square(lengths)))


@given(answers)
def test_the_mean_is_that_of_the_sample_with_running_answers_completed(part: list[tuple[int, bool]]) -> None:
    """Efron's self-consistency, on which the sums over sub-trees rest."""
    found = curves(part)
    tokens = np.array([float(length) for length, _ in part])
    finished = np.array([ended for _, ended in part])
    mean, square = found.beyond(np.zeros(len(part), dtype=np.int64), tokens)
    assert np.where(finished, tokens, mean).mean() == pytest.approx(found.mean[0])
    assert np.where(finished, tokens**2, square).mean() == pytest.approx(found.square[0])


@given(answers, st.integers(0, 1200))
def test_what_is_to_come_is_longer_than_what_is_there_and_within_the_limit(
    part: list[tuple[int, bool]], length: int
) -> None:
    mean, square = curves(part).beyond(np.zeros(1, dtype=np.int64), np.array([float(length)]))
    assert length <= mean[0] <= max(LIMIT, length)
    assert square[0] >= mean[0] ** 2


def test_running_answers_alone_live_for_the_guess_and_no_longer_than_the_limit() -> None:
    (mean,), _ = curves([(10, False)] * 50).beyond(np.array([0]), np.array([10.0]))
    assert mean == pytest.approx(10 + 100 * (1 - np.exp(-990 / 100)))
    (mean,), (square,) = curves([(10, False)] * 50, limit=12).beyond(np.array([0]), np.array([10.0]))
    assert 11.9 < mean < 12
    assert mean**2 <= square < 144


def test_exponential_lengths_cut_off_at_their_median_give_their_mean() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.exponential(200, 4000)
    part = [(round(min(length, 139)), bool(length < 139)) for length in lengths]
    found = curves(part, limit=1e6, guess=1.0)
    assert found.mean[0] == pytest.approx(200, rel=0.15)
    # Taking only those that finished halves the answer.
    assert np.mean([length for length, ended in part if ended]) < 70


def test_a_weight_stands_for_as_many_answers() -> None:
    heavy = Observations(np.zeros(2, np.int64), np.array([10.0, 40.0]), np.array([True, False]), np.array([3.0, 2.0]))
    one = kaplan_meier(heavy, np.array([LIMIT]), np.array([GUESS]))
    other = curves([(10, True)] * 3 + [(40, False)] * 2)
    assert one.mean[0] == pytest.approx(other.mean[0])
    assert one.seen[0] == other.seen[0] == 5


def test_a_group_without_answers_has_no_weight() -> None:
    seen = Observations(np.array([1]), np.array([5.0]), np.array([True]), np.ones(1))
    found = kaplan_meier(seen, np.full(3, LIMIT), np.full(3, GUESS))
    assert found.seen.tolist() == [0, 1, 0]
    assert found.mean.tolist() == [0, 5, 0]
    (mean,), _ = found.beyond(np.array([0]), np.array([7.0]))
    assert 7 < mean <= 7 + GUESS


@given(st.lists(answers, min_size=1, max_size=4))
def test_quantiles_average_to_the_mean(groups: list[list[tuple[int, bool]]]) -> None:
    found = curves(*groups)
    level = (np.arange(20_000) + 0.5) / 20_000
    for group in range(len(groups)):
        tokens = found.quantile(np.full(len(level), group), level)
        assert (np.diff(tokens) >= 0).all()
        assert tokens.mean() == pytest.approx(found.mean[group], rel=0.01, abs=0.01)


def test_quantiles_are_those_of_the_sample() -> None:
    found = curves([(tokens, True) for tokens in (1, 2, 3, 4, 100)], [(7, True)])
    group = np.array([0, 0, 0, 0, 1])
    assert found.quantile(group, np.array([0.0, 0.2, 0.5, 1.0, 0.5])).tolist() == [1, 1, 3, 100, 7]


def test_quantiles_of_a_group_without_answers_are_nothing() -> None:
    assert kaplan_meier(
        Observations(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.bool_), np.zeros(0)), np.ones(2), np.ones(2)
    ).quantile(np.array([0, 1]), np.array([0.5, 0.9])).tolist() == [0, 0]

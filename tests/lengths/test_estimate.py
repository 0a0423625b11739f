"""Lengths: which source wins, what samples change and for whom, and what always holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.lengths.base import Lengths, LengthSource
from blendrun.lengths.estimate import estimate, length_report
from blendrun.lengths.evidence import BINS, Recalled, Samples, octave
from blendrun.lengths.prior import prior_moments
from blendrun.lengths.subtrees import _rungs
from blendrun.names import LengthMode
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree
from tests.imports import loaded_by
from tests.lengths.small_tree import make_prompts, make_tree

Drawn = tuple[Prompts, PrefixTree, Samples | None, Recalled | None]


def samples(*rows: tuple[int, float] | tuple[int, float, bool]) -> Samples:
    """(prompt, tokens) of a finished answer, (prompt, tokens, False) of a running one."""
    full = [(*row, True)[:3] for row in rows]
    return Samples(
        np.array([row[0] for row in full], dtype=np.int64),
        np.array([row[1] for row in full], dtype=np.float64),
        np.array([row[2] for row in full], dtype=np.bool_),
    )


def recalled(cluster: int, lengths: list[float]) -> Recalled:
    tokens = np.array(lengths)
    bins = octave(tokens)
    count, total, square = (
        np.bincount(bins, part, BINS)[None].astype(np.float64) for part in (np.ones(len(bins)), tokens, tokens**2)
    )
    return Recalled(np.array([cluster], dtype=np.uint64), count, total, square)


def alone(count: int, **columns: Any) -> tuple[Prompts, PrefixTree]:
    """Prompts that share nothing."""
    units = [[number] for number in range(count)]
    return make_prompts(units, **columns), make_tree(units)


def two_passages(each: int) -> list[list[int]]:
    """Prompts on passage 1, then on passage 2, behind one system message."""
    return [[9, passage, question] for passage in (1, 2) for question in range(each)]


@st.composite
def jobs(draw: st.DrawFn) -> Drawn:
    units = draw(st.lists(st.lists(st.integers(0, 2), max_size=4), max_size=15))
    count = len(units)
    bound = draw(st.lists(st.integers(0, 5000), min_size=count, max_size=count))
    reference = [draw(st.integers(-1, most)) for most in bound]
    prompts = make_prompts(
        units,
        bound=bound,
        cluster=draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)),
        choices=draw(st.lists(st.integers(1, 3), min_size=count, max_size=count)),
        reference=reference,
        known=draw(st.lists(st.booleans(), min_size=count, max_size=count)),
    )
    chosen = draw(st.lists(st.integers(0, count - 1), max_size=20)) if count else []
    seen = samples(*[(number, draw(st.integers(0, bound[number])), draw(st.booleans())) for number in chosen])
    history = recalled(draw(st.integers(0, 3)), draw(st.lists(st.integers(0, 6000), min_size=1, max_size=9)))
    return prompts, make_tree(units), draw(st.sampled_from([None, seen])), draw(st.sampled_from([None, history]))


@given(jobs(), st.sampled_from(LengthMode))
def test_moments_are_possible_whatever_is_known(job: Drawn, mode: LengthMode) -> None:
    prompts, tree, seen, history = job
    lengths = estimate(prompts, tree, mode=mode, samples=seen, history=history)
    assert len(lengths) == len(prompts)
    assert np.isfinite(lengths.mean).all() and np.isfinite(lengths.square).all()
    assert ((lengths.mean >= 0) & (lengths.mean <= lengths.bound)).all()
    assert (lengths.square >= lengths.mean**2).all()
    assert (lengths.square <= lengths.mean * lengths.bound * (1 + 1e-12)).all()
    assert lengths.bound.tolist() == prompts.bound.tolist()
    again = estimate(prompts, tree, mode=mode, samples=seen, history=history)
    assert again.mean.tobytes() == lengths.mean.tobytes() and again.square.tobytes() == lengths.square.tobytes()


@given(jobs())
def test_facts_are_exact_and_an_oracle_speaks_only_when_asked(job: Drawn) -> None:
    prompts, tree, seen, history = job
    auto = estimate(prompts, tree, samples=seen, history=history)
    asked = estimate(prompts, tree, mode=LengthMode.REFERENCE, samples=seen, history=history)
    given_length = prompts.reference >= 0
    fact = prompts.known & given_length
    for lengths, exact in ((auto, fact), (asked, given_length)):
        assert lengths.mean[exact].tolist() == prompts.reference[exact].tolist()
        assert lengths.square[exact].tolist() == (prompts.reference[exact].astype(float) ** 2).tolist()
    assert (auto.source[fact] == LengthSource.KNOWN).all()
    assert (asked.source[given_length & ~fact] == LengthSource.REFERENCE).all()
    assert LengthSource.REFERENCE not in auto.source
    assert auto.mean[~given_length].tolist() == asked.mean[~given_length].tolist()


def test_prior_mode_looks_at_bounds_alone() -> None:
    prompts, tree = alone(3, bound=[10, 100, 1000], reference=5, known=True)
    seen = samples((0, 3), (1, 4))
    lengths = estimate(prompts, tree, mode=LengthMode.PRIOR, samples=seen, history=recalled(7, [5.0]))
    assert lengths.mean.tolist() == prior_moments(prompts.bound)[0].tolist()
    assert length_report(lengths) == {"prior": 3}


def test_the_report_counts_prompts_by_source_best_first() -> None:
    prompts, tree = alone(5, cluster=[1, 1, 2, 3, 4], reference=[5, -1, -1, -1, -1], known=[True] + [False] * 4)
    lengths = estimate(prompts, tree, samples=samples((1, 9)), history=recalled(2, [4.0]))
    assert list(length_report(lengths).items()) == [("known", 1), ("samples", 1), ("history", 1), ("prior", 2)]


def test_an_empty_job_has_no_lengths() -> None:
    prompts, tree = alone(0)
    lengths = estimate(prompts, tree, samples=samples(), history=recalled(7, [1.0]))
    assert len(lengths) == 0
    assert length_report(lengths) == {}


class TestSamples:
    def test_more_of_them_move_the_estimate_to_their_mean(self) -> None:
        prompts, tree = alone(200)
        off = []
        for count in (0, 1, 4, 16, 64):
            lengths = estimate(prompts, tree, samples=samples(*[(number, 20 + number % 2) for number in range(count)]))
            off.append(abs(lengths.mean[199] - 20.5))
        assert off == sorted(off, reverse=True)
        assert off[-1] < 3 < off[0]
        assert lengths.square[199] == pytest.approx(lengths.mean[199] ** 2, rel=3)

    def test_a_finished_answer_is_known_and_a_running_one_is_longer_than_it_is_now(self) -> None:
        prompts, tree = alone(20)
        lengths = estimate(prompts, tree, samples=samples((0, 50), (1, 300, False), *[(n, 40) for n in range(2, 12)]))
        assert (lengths.mean[0], lengths.square[0]) == (50, 2500)
        assert lengths.mean[1] > 300

    def test_running_answers_count(self) -> None:
        prompts, tree = alone(100)
        short = [(number, 10) for number in range(10)]
        running = [(number, 200, False) for number in range(10, 40)]
        ignored = estimate(prompts, tree, samples=samples(*short))
        counted = estimate(prompts, tree, samples=samples(*short, *running))
        assert ignored.mean[99] < 50
        assert counted.mean[99] > 150

    def test_half_of_a_prompt_s_choices_are_half_of_its_length(self) -> None:
        prompts, tree = alone(40, choices=[2] * 40)
        others = [(number, 100) for number in range(1, 33)]
        lengths = estimate(prompts, tree, samples=samples((0, 500), *others))
        both = estimate(prompts, tree, samples=samples((0, 500), (0, 700), *others))
        assert 300 < lengths.mean[0] < 450
        assert both.mean[0] == 600

    def test_a_third_of_them_is_a_third(self) -> None:
        prompts, tree = alone(40, choices=[3] * 40)
        others = [(number, 100) for number in range(1, 33)]
        lengths = estimate(prompts, tree, samples=samples((0, 700), *others))
        # As if two more were about 235: the kind's mean, with this one in it.
        assert 340 < lengths.mean[0] < 430

    def test_kinds_are_told_apart(self) -> None:
        prompts, tree = alone(100, cluster=[number % 2 for number in range(100)])
        seen = samples(*[(number, 500 if number % 2 else 10) for number in range(60)])
        lengths = estimate(prompts, tree, samples=seen)
        assert lengths.mean[98] < 20
        assert lengths.mean[99] > 450

    def test_a_kind_without_samples_follows_how_the_others_compare_to_their_priors(self) -> None:
        """A bound of its own for every request: all there is to learn from is the others."""
        bounds = list(range(500, 600))
        prompts, tree = alone(100, cluster=bounds, bound=bounds)
        lengths = estimate(prompts, tree, samples=samples(*[(number, 20) for number in range(60)]))
        prior, _ = prior_moments(prompts.bound)
        assert prior[99] > 150
        assert lengths.mean[99] < 60
        assert lengths.source[99] == LengthSource.PRIOR


class TestSubtrees:
    def test_they_are_told_apart_after_eight_samples_each(self) -> None:
        units = two_passages(30)
        seen = samples(*[(number, 40) for number in range(8)], *[(30 + number, 400) for number in range(8)])
        lengths = estimate(make_prompts(units), make_tree(units), samples=seen)
        assert lengths.mean[8:30].max() < 140
        assert lengths.mean[38:].min() > 280

    def test_one_without_samples_takes_its_siblings_estimate(self) -> None:
        units = [*two_passages(30), [9, 3, 0]]
        seen = samples(*[(number, 40) for number in range(16)], *[(30 + number, 400) for number in range(16)])
        lengths = estimate(make_prompts(units), make_tree(units), samples=seen)
        assert lengths.mean[60] == pytest.approx(220, rel=0.1)

    def test_odd_requests_between_templates_take_after_each_other(self) -> None:
        """Forty lone prompts with long answers beside a template with short ones; half of the lone ones are seen."""
        units = [[1, number] for number in range(400)] + [[2 + number] for number in range(40)]
        seen = samples(*[(number, 50) for number in range(100)], *[(400 + number, 800) for number in range(20)])
        lengths = estimate(make_prompts(units, bound=4096), make_tree(units), samples=seen)
        assert lengths.mean[200] < 70
        assert lengths.mean[430] > 600

    def test_a_step_down_the_ladder_is_four_samples_or_a_tenth(self) -> None:
        counts = np.arange(2_000)
        borders = np.flatnonzero(np.diff(_rungs(counts))) + 1
        assert borders[:15].tolist() == [1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52]
        steps = np.diff(borders[15:]) / borders[15:-1]
        assert steps.min() > 0.08 and steps.max() <= 0.1

    def test_both_moments_follow(self) -> None:
        units = two_passages(30)
        rng = np.random.default_rng(0)
        spread = rng.exponential(200, 30)
        seen = samples(*[(number, 200) for number in range(29)], *[(30 + n, spread[n]) for n in range(29)])
        lengths = estimate(make_prompts(units, bound=4096), make_tree(units), samples=seen)
        narrow, wide = lengths.square[29] / lengths.mean[29] ** 2, lengths.square[59] / lengths.mean[59] ** 2
        assert narrow < 1.4 < wide

    def test_a_running_answer_among_long_ones_is_expected_to_be_long(self) -> None:
        units = two_passages(20)
        rest = [(number, 40) for number in range(10)] + [(20 + number, 400) for number in range(10)]
        seen = samples(*rest, (15, 10, False), (35, 10, False))
        lengths = estimate(make_prompts(units), make_tree(units), samples=seen)
        assert lengths.mean[35] > 1.5 * lengths.mean[15]
        # Lengths grow with what is known of the place, their squares twice over: the spread stays.
        assert 1.3 < lengths.square[35] / lengths.mean[35] ** 2 < 2

    def test_a_chain_costs_no_more_than_a_bush(self) -> None:
        """Each prompt a prefix of the next, 300 deep: the levels on a path stay few, the estimate stays sound."""
        units = [[1] * depth for depth in range(1, 301)]
        seen = samples(*[(number, 100) for number in range(0, 300, 2)])
        lengths = estimate(make_prompts(units), make_tree(units), samples=seen)
        assert lengths.mean == pytest.approx(np.full(300, 100), rel=0.1)


class TestHistory:
    def test_a_kind_that_was_seen_before_starts_well_informed(self) -> None:
        prompts, tree = alone(10, cluster=[1] * 5 + [2] * 5)
        lengths = estimate(prompts, tree, history=recalled(2, [30.0, 50.0] * 500))
        assert lengths.mean[9] == pytest.approx(40, rel=0.15)
        assert lengths.square[9] >= 1700
        assert lengths.source.tolist() == [LengthSource.PRIOR] * 5 + [LengthSource.HISTORY] * 5

    def test_it_gives_way_to_this_run(self) -> None:
        prompts, tree = alone(300)
        history = recalled(7, [40.0] * 10_000)
        few = estimate(prompts, tree, history=history, samples=samples(*[(number, 400) for number in range(4)]))
        many = estimate(prompts, tree, history=history, samples=samples(*[(number, 400) for number in range(200)]))
        assert few.mean[299] < 130
        assert many.mean[299] > 330


def test_importing_lengths_loads_no_runtime() -> None:
    assert loaded_by("blendrun.lengths").isdisjoint({"torch", "sglang", "transformers"})


def test_lengths_is_what_it_returns() -> None:
    prompts, tree = alone(1)
    assert isinstance(estimate(prompts, tree), Lengths)

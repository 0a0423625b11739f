"""What the titles of pictures say, in each case that they tell apart, and the scales that pictures are drawn on."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blendrun.report.page.charts import orders, pool, prefix_tree, strip, timeline
from blendrun.report.page.charts.base import Bounds
from blendrun.report.page.charts.bounds import bounds_of
from blendrun.report.page.charts.lengths import finding_of as lengths_finding
from blendrun.report.page.groups import Group
from blendrun.report.page.requests import Requests
from blendrun.report.page.scale import Scale, scale_of, stretched
from blendrun.report.page.subject import Subject
from blendrun.report.page.tail import Tail, tail_of
from blendrun.report.schemas.plan import PlanReport
from blendrun.report.schemas.series import Series
from blendrun.store.summary import Counts
from tests.report.page_of_runs import small_plan, subject


def series(prefill: list[float], decode: list[float], **more: Any) -> Series:
    nothing = (0.0,) * len(prefill)
    held, hits = more.get("held", nothing), more.get("hits", nothing)
    return Series(float(len(prefill)), tuple(prefill), tuple(decode), tuple(hits), tuple(held))


def slower(found: Subject, ratio: float) -> Subject:
    """The run, with a plan that predicted so many times less than it took."""
    assert found.summary is not None and found.summary.plan is not None and found.run_seconds is not None
    plan = msgspec.structs.replace(found.summary.plan, predicted_seconds=found.run_seconds / ratio)
    return replace(found, summary=msgspec.structs.replace(found.summary, plan=plan))


@pytest.mark.parametrize(
    "prefill, decode, planned, words",
    [
        ([9, 9, 0, 0], [0, 1, 1, 1], False, "Nearly all prompts were read in the first 2.0 s of 4.0 s"),
        ([9, 0, 0, 0], [0, 1, 1, 1], True, "The plan: nearly all prompts are read in the first 1.0 s of 4.0 s"),
        ([9, 9, 9, 9], [1, 1, 1, 1], False, "Prompts were read from the beginning to the end of 4.0 s"),
        ([9, 9], [0, 0], False, "All 2.0 s for prompts, none for answers"),
        ([0, 0], [1, 1], False, "All 2.0 s for answers, none for prompts"),
        ([0, 0], [0, 0], False, "Nothing is computed in 2.0 s"),
    ],
)
def test_the_time_line_says_when_prompts_were_done(
    prefill: list[float], decode: list[float], planned: bool, words: str
) -> None:
    assert timeline.finding_of(series(prefill, decode), None, planned=planned) == words


def test_the_time_line_says_that_most_of_it_was_a_tail() -> None:
    found = timeline.finding_of(series([9, 0], [0, 1]), Tail(1, False, 1.0, 1.0, 0.5), planned=False)
    assert found == "50 % of the run was its tail: 1 request ran alone for the last 1.0 s"


def test_of_two_runs_the_faster_one_is_named() -> None:
    assert timeline.finding_of_both(("a", 20.0), ("b", 10.0)) == "b took 10.0 s, a 20.0 s: 2.00 times as long"
    assert timeline.finding_of_both(("a", 10.1), ("b", 10.0)) == "Both took 10.1 s"


@pytest.mark.parametrize(
    "held, hits, size, words",
    [
        ((10, 96), (0, 0), 100, "The KV pool was full for 50 % of the time; 0 %"),
        ((10, 60), (0, 9), 100, "The KV pool was never more than 60 % full; 50 %"),
        ((0, 0), (0, 9), 100, "The KV pool was never more than 1 % full; 50 %"),
        ((0, 0), (0, 9), None, "50 %"),
    ],
)
def test_the_pool_says_how_full_it_was(held: tuple[float, ...], hits: tuple[float, ...], size: int, words: str) -> None:
    shown = series([9, 0], [0, 1], held=held, hits=hits)
    assert pool.finding_of(shown, size, planned=False) == f"{words} of the prompt tokens came from the cache"


@pytest.mark.parametrize(
    "running, words",
    [
        ((8.0, 8.0, 8.0, 4.0), "At most 8 requests ran at once, and for half of the time 8 or more"),
        ((8.0, 1.4, 1.2, 1.0), "At most 8 requests ran at once, and for half of the time no more than 2"),
        ((1.0, 0.0, 0.0, 0.0), "At most 1 request ran at once, and for half of the time none"),
    ],
)
def test_what_ran_says_how_many_at_once(running: tuple[float, ...], words: str) -> None:
    assert strip.finding_of([Group("a", 8, running)]) == words


def test_of_a_stopped_run_it_is_of_those_that_have_ended(tmp_path: Path) -> None:
    assert strip.finding_of([Group("a", 8, (3.0, 1.0))], all_ended=False).startswith(
        "Of those that have ended, at most 3"
    )
    found = subject(tmp_path)
    assert found.summary is not None
    stopped = msgspec.structs.replace(found.summary, counts=Counts(600, 59, 1))
    for summary, begin in ((found.summary, "At most"), (stopped, "Of those that have ended")):
        chart = strip.strip(replace(found, summary=summary), Bounds())
        assert chart is not None and chart.finding.startswith(begin)


@settings(max_examples=40)
@given(
    running=st.lists(st.lists(st.floats(0, 900), min_size=7, max_size=7), min_size=1, max_size=4),
)
def test_what_ran_is_true_of_any_run(running: list[list[float]]) -> None:
    found = strip.finding_of([Group("a", 8, tuple(each)) for each in running])
    at_once = [sum(each) for each in zip(*running, strict=True)]
    said = [int(count.replace(",", "")) for count in re.findall(r"\d+(?:,\d{3})*", found)]
    assert max(at_once) <= max(said[0], 1)
    if "no more than" in found:
        assert sum(each <= said[1] for each in at_once) >= len(at_once) / 2
    elif "or more" in found and said[1] > 1:
        assert sum(each >= said[1] for each in at_once) >= len(at_once) / 2


def test_lengths_say_how_well_they_were_known() -> None:
    known = Requests(within_two=0.85, cut=1)
    assert lengths_finding(known) == (
        "85 % of the answers were between half and twice as long as expected; 1 answer was cut at the limit"
    )
    assert lengths_finding(Requests()) == "No length was expected"


def bar(name: str, seconds: float, kind: str) -> orders.Bar:
    return orders.Bar(name, seconds, kind)


@pytest.mark.parametrize(
    "bars, words",
    [
        (
            [bar("lof, mixed: this run", 10.0, "measured"), bar(orders.PLAIN, 20.0, "without blendrun")],
            "This run (lof, mixed) took 10.0 s; plain SGLang in file order would have taken about 20.0 s",
        ),
        (
            [bar("lof, mixed", 10.0, "chosen"), bar(orders.PLAIN, 10.1, "without blendrun")],
            "Chosen: lof, mixed, 10.0 s; plain SGLang in file order would take as long",
        ),
        (
            [bar("given: this run", 10.0, "measured"), bar("lof, mixed", 5.0, "predicted")],
            "This run (given) took 10.0 s; lof, mixed is predicted faster: 5.0 s",
        ),
        (
            [bar("given: this run", 10.0, "measured"), bar("lof, mixed", 15.0, "predicted")],
            "This run (given) took 10.0 s; lof, mixed would have taken about 15.0 s",
        ),
        (
            [bar("given: this run", 1.82, "measured"), bar("lof, mixed", 1.75, "predicted")],
            "This run (given) took 1.8 s; lof, mixed would have taken about 1.8 s",
        ),
        ([bar("file order, exclusive", 10.0, "chosen")], "Chosen: file order, exclusive, 10.0 s"),
    ],
)
def test_orders_say_what_the_job_takes_without_blendrun(bars: list[orders.Bar], words: str) -> None:
    assert orders.finding_of(bars) == words


def test_a_mode_that_all_orders_have_is_not_said(tmp_path: Path) -> None:
    found = subject(tmp_path)
    plan = found.plan
    assert plan is not None
    assert {name.partition(", ")[2] for name in names(found, plan)} > {""}
    one = replace(plan, orders=tuple(row for row in plan.orders if row.overlap == "exclusive"))
    assert all("exclusive" not in name for name in names(found, one))


def names(found: Subject, plan: PlanReport) -> list[str]:
    return [bar.name for bar in orders.bars_of(plan, found, None)]


@pytest.mark.parametrize("ratio", [0.25, 1.0, 4.0])
def test_the_order_that_ran_takes_what_was_measured_and_others_keep_their_ratio(tmp_path: Path, ratio: float) -> None:
    found = slower(subject(tmp_path), ratio)
    plan, scale = found.plan, scale_of(found)
    assert plan is not None and scale is not None and scale.ratio == pytest.approx(ratio)
    bars = orders.bars_of(plan, found, scale)
    assert bars[0].seconds == found.run_seconds and bars[0].kind == "measured"
    plain = next(each for each in bars if each.name == orders.PLAIN)
    assert plain.seconds == pytest.approx(plan.plain_seconds * ratio)


def test_a_wrong_plan_does_not_press_the_run_to_the_ground(tmp_path: Path) -> None:
    found = slower(subject(tmp_path), 40.0)
    assert found.series is not None
    peak = max(map(sum, zip(found.series.prefill, found.series.decode, strict=True)))
    assert stretched(found) == pytest.approx(40.0)
    assert peak <= bounds_of([found]).rate <= 1.6 * peak
    assert bounds_of([found, subject(tmp_path, "other")]).rate >= peak


@pytest.mark.parametrize(
    "ratio, times, words",
    [
        (1.04, "measured", "The prediction was right within 4 %"),
        (
            4.0,
            "prior",
            "Predictions were 4.0 times too low (uncalibrated, they rest on published rates; `blendrun",
        ),
        (0.8, "learned", "Predictions were 25 % too high (they were learned from 44 runs)"),
    ],
)
def test_the_plan_is_judged_in_words(ratio: float, times: str, words: str) -> None:
    assert Scale(ratio, 10.0, times, "learned from 44 runs").sentence.startswith(words)


def test_a_run_that_was_stopped_has_no_scale(tmp_path: Path) -> None:
    found = subject(tmp_path)
    assert found.summary is not None
    stopped = replace(found, summary=msgspec.structs.replace(found.summary, status="drained"))
    assert scale_of(stopped) is None and stretched(stopped) == 1.0
    chart = orders.orders(stopped, Bounds())
    assert chart is not None and "did not end in one go" in chart.note


def test_blocks_as_wide_as_what_they_save_lie_inside_their_parents() -> None:
    nodes = [node for node in small_plan().icicle if node.level > 0]
    extents = prefix_tree.saved_extents(nodes)
    parents = prefix_tree._parents(nodes)
    saved = sum(node.saved_tokens for node in nodes)
    assert max(end for _, end in extents) == saved
    for place, parent in enumerate(parents):
        begin, end = extents[place]
        assert end - begin >= nodes[place].saved_tokens
        if parent >= 0:
            assert extents[parent][0] <= begin and end <= extents[parent][1]
    assert any(parent >= 0 for parent in parents)


def test_the_heaviest_prefix_is_named_by_its_text() -> None:
    plan = small_plan()
    heaviest = max(plan.icicle, key=lambda node: node.saved_tokens)
    named = [replace(node, text="You are a helpful") if node is heaviest else node for node in plan.icicle]
    assert "“You are a helpful”, " in prefix_tree.finding_of(replace(plan, icicle=tuple(named)))
    nothing = [replace(node, saved_tokens=0) for node in plan.icicle]
    assert prefix_tree.finding_of(replace(plan, icicle=tuple(nothing))) == "60 requests share nothing"


def test_a_tail_is_a_few_that_go_on_alone() -> None:
    begun, ended = np.zeros(40), np.concatenate((np.linspace(4, 6, 37), [11.0, 11.5, 12.0]))
    output = np.concatenate((np.full(37, 20), np.full(3, 200)))
    tail = tail_of(begun, ended, output)
    assert tail == Tail(3, True, 6.0, 6.0, 0.5)
    assert tail.words == "3 long answers ran alone"


def test_answers_that_end_together_have_no_tail() -> None:
    ended = np.linspace(4, 6, 40)
    assert tail_of(np.zeros(40), ended, np.full(40, 20)) is None
    one_by_one = np.arange(40, dtype=np.float64)
    assert tail_of(one_by_one, one_by_one + 1, np.full(40, 20)) is None


def test_what_all_prompts_begin_with_has_no_request_s_name() -> None:
    plan = small_plan()
    root = max(plan.icicle, key=lambda node: node.saved_tokens)
    for of_all, words in ((True, "the heaviest prefix: what all prompts begin with, "), (False, "beginning of x, ")):
        node = replace(root, text="", merged=0, example="x", requests=plan.requests if of_all else 2)
        assert words in prefix_tree.finding_of(replace(plan, icicle=(node,)))

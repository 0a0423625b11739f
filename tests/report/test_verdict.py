"""The sentence at the head of a page, and its marks in colour, for every end that a run can have."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from blendrun.report.page.cards import cards
from blendrun.report.page.requests import Requests
from blendrun.report.page.subject import Subject, plan_subject
from blendrun.report.page.tail import Tail
from blendrun.report.page.verdict import BAD, GOOD, WARN, duration, marks, title
from blendrun.report.terminal.duration import span
from blendrun.store.manifest import Manifest
from blendrun.store.status import BatchStatus, ProcessStatus, RequestCounts
from blendrun.store.summary import Cost, Counts, Summary
from tests.report.page_of_runs import made_summary, small_plan

RAN = Requests(count=27, seconds=24.0, invocations=1)


def ended(counts: Counts, **fields: Any) -> Summary:
    plain = {"status": "completed", "exit_code": 0, "seconds": {"load": 95.0, "run": 24.0}, "finish_reasons": {}}
    return msgspec.structs.replace(made_summary(1, small_plan()), counts=counts, **plain | fields)


def run(summary: Summary | None, requests: Requests = RAN, **fields: Any) -> Subject:
    manifest = Manifest(1, {}, ("jobs.jsonl",), "f", None, "m", "i", "sglang", {})
    return Subject("answers", None, summary=summary, manifest=manifest, requests=requests, **fields)


def working(pid: int) -> BatchStatus:
    process = ProcessStatus(pid, platform.node(), "run", "", 4, 0.0)
    return BatchStatus("id", "m", "jobs.jsonl", "in_progress", 0, process, request_counts=RequestCounts(30, 8, 0))


def looks(subject: Subject) -> dict[str, str]:
    return {mark.words: mark.look for mark in marks(subject)}


def test_all_answered_is_green() -> None:
    subject = run(ended(Counts(27, 27, 0)))
    assert title(subject) == "27 answered, none failed, in 24.0 s (load 1 min 35 s before it)"
    assert looks(subject) == {"completed": GOOD, "none failed": GOOD}


def test_a_model_that_was_made_first_is_told_beside_the_load() -> None:
    summary = ended(Counts(27, 27, 0), seconds={"start": 1.0, "model": 31.0, "load": 8.0, "run": 24.0, "wall": 64.5})
    assert title(run(summary)).endswith("in 24.0 s (model 31.0 s, load 8.0 s before it)")
    wall = next(card for card in cards(run(summary)) if card.name == "wall time")
    assert (wall.value, wall.beside) == ("1 min 4 s", "start 1.0 s, model 31.0 s, load 8.0 s, run 24.0 s")


def test_what_it_cost_is_what_the_run_was_told_or_what_is_asked_now() -> None:
    def cost(summary: Summary, **fields: Any) -> list[tuple[str, str]]:
        return [(card.value, card.beside) for card in cards(run(summary, **fields)) if card.name == "cost"]

    summary = ended(Counts(25, 25, 0), seconds={"run": 24.0, "wall": 3600.0}, devices=8)
    told = msgspec.structs.replace(summary, cost=Cost(16.0, 2.0))
    assert cost(summary) == []
    assert cost(told) == [("16.00", "640.00 per 1,000 answers, load included")]
    assert cost(told, price=1.0) == cost(summary, price=1.0) == [("8.00", "320.00 per 1,000 answers, load included")]
    assert cost(msgspec.structs.replace(told, resumed=True)) == [("16.00", "of the last part of the run alone")]


def test_a_tail_is_told() -> None:
    requests = replace(RAN, tail=Tail(3, True, 12.0, 12.0, 0.5))
    assert title(run(ended(Counts(27, 27, 0)), requests)).endswith("; 3 long answers ran alone for the last 12.0 s")


def test_failures_are_red_and_what_was_cut_is_amber() -> None:
    summary = ended(Counts(8, 2, 6), exit_code=3, finish_reasons={"length": 1, "stop": 1}, unkept=1)
    subject = run(summary, replace(RAN, cut=1))
    assert title(subject).startswith("2 answered, 6 failed, in 24.0 s")
    assert looks(subject) == {
        "completed": WARN,
        "6 failed": BAD,
        "1 of 2 cut short": WARN,
        "1 of 2 not in the form that was asked for": WARN,
    }


@pytest.mark.parametrize(
    "status, code, words",
    [("drained", 130, "stopped by Ctrl-C"), ("drained", 75, "stopped by"), ("failed", 4, "stopped: too many lines")],
)
def test_a_run_that_was_stopped_says_by_whom_and_what_is_left(status: str, code: int, words: str) -> None:
    subject = run(ended(Counts(30, 8, 0), status=status, exit_code=code))
    assert title(subject).lower().startswith(words.lower())
    assert "8 answered, none failed, 22 not done" in title(subject)
    assert any("the same command goes on" in each for each in looks(subject))


def test_a_run_that_works_and_one_that_was_killed_are_told_apart() -> None:
    assert title(run(None, status=working(os.getpid()))).startswith("Still running: 8 answered, none failed, 22 not")
    assert title(run(None, status=working(2**22 - 1))).startswith("Killed: 8 answered")
    assert title(run(None, Requests())) == "Not ended: nothing answered yet"
    assert title(run(None)) == "Not ended: 27 answered, none failed, in 24.0 s"


def test_a_plan_says_how_many_lines_will_fail() -> None:
    plan = replace(small_plan(), lines=635, requests=565, left_out=70)
    subject = plan_subject(plan, "jobs.jsonl")
    assert title(subject).startswith("565 requests planned, 70 of 635 lines will fail, about ")
    assert looks(subject)["70 of 635 lines will fail"] == BAD
    assert looks(plan_subject(small_plan(), "jobs.jsonl"))["every line can run"] == GOOD


def test_times_are_short() -> None:
    shown = [duration(each) for each in (0.0, 0.0004, 0.014, 0.97, 59.94, 200.0)]
    assert shown == ["0.0 s", "less than 1 ms", "14 ms", "1.0 s", "59.9 s", "3 min 20 s"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (3661, "1 h 1 min"), (3659, "1 h")],
)
def test_a_time_has_no_unit_that_there_is_nothing_of(seconds: float, words: str) -> None:
    assert span(seconds) == words

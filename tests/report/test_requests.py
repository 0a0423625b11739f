"""Records of a run, as its page shows them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.report.page.requests import Requests, read_requests
from blendrun.report.schemas.icicle import IcicleNode
from blendrun.report.schemas.series import Admissions
from blendrun.store.records import RequestRecord


def record(index: int, submitted: float, ended: float, **fields: Any) -> RequestRecord:
    known: dict[str, Any] = {
        "run": 1,
        "custom_id": f"id {index}",
        "row": index,
        "index": index,
        "side": 0,
        "planned_output": 10,
        "planned_hit": 0,
        "prompt": 20,
        "cached": 5,
        "output": 10,
        "finish": ("stop",),
        "error": None,
        "submitted": submitted,
        "ended": ended,
    }
    return RequestRecord(**known | fields)


def read(
    tmp_path: Path, *records: RequestRecord, tree: tuple[IcicleNode, ...] = (), torn: bytes = b"", admitted: Any = ()
) -> Requests:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in records) + torn)
    return read_requests(path, tree, Admissions(tuple(admitted)))


def node(number: int, end: int, level: int, requests: int) -> IcicleNode:
    return IcicleNode(number, end, level, 0, requests, 10.0, 10, 10, 1.0, f"id of {number}")


@given(spans=st.lists(st.tuples(st.floats(0, 50), st.floats(0.01, 50)), min_size=1, max_size=40))
def test_the_time_in_flight_is_all_drawn(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[float, float]]
) -> None:
    records = [record(place, begun, begun + lasted) for place, (begun, lasted) in enumerate(spans)]
    found = read(tmp_path_factory.mktemp("records"), *records)
    [group] = found.groups
    width = found.seconds / len(group.running)
    assert sum(group.running) * width == pytest.approx(sum(lasted for _, lasted in spans), rel=0.01)


def test_what_waits_in_the_engine_does_not_run(tmp_path: Path) -> None:
    records = [record(0, 0.0, 4.0, subtree=0), record(1, 0.0, 8.0, subtree=0)]
    [group] = read(tmp_path, *records, admitted=[np.array([0.0, 4.0])]).groups
    width = 8.0 / len(group.running)
    assert sum(group.running) * width == pytest.approx(8.0, rel=0.01)


def test_invocations_stand_end_to_end(tmp_path: Path) -> None:
    found = read(tmp_path, record(0, 0.0, 4.0), record(1, 1.0, 3.0, run=2), torn=b'{"run":3,"cust')
    assert (found.count, found.seconds) == (2, 7.0)


def test_requests_are_grouped_by_their_largest_sub_trees(tmp_path: Path) -> None:
    told = replace(node(1, 10, 1, 3), text="You are a helpful assistant")
    tree = (node(0, 30, 0, 9), told, node(11, 20, 1, 5), node(12, 14, 2, 2))
    places = [1, 5, 9, 11, 12, 13, 15, 19, 25]
    records = [record(place, 0.0, 1.0, subtree=number) for place, number in enumerate(places)]
    found = read(tmp_path, *records, tree=tree)
    assert {group.label: group.requests for group in found.groups} == {
        "beginning of id of 12, 10 tokens, 2 requests": 2,
        "“You are a helpful assis…”, 10 tokens, 3 requests": 3,
        "all others": 4,
    }


def test_slow_and_failed_requests_and_lengths(tmp_path: Path) -> None:
    records = [record(place, 0.0, 1.0 + place, output=10 * (1 + place % 2)) for place in range(40)]
    records += [record(40, 0.0, 99.0, error="engine_error", output=0, finish=())]
    records += [record(41, 0.0, 2.0, output=64, finish=("stop", "length"))]
    found = read(tmp_path, *records)
    assert [slow.custom_id for slow in found.slowest[:3]] == ["id 39", "id 38", "id 37"]
    assert [failed.custom_id for failed in found.failed] == ["id 40"]
    # Of two choices, 32 tokens each: an octave more than twice of what was expected.
    assert {(x, y): count for x, y, count in found.lengths} == {(3, 3): 20, (3, 4): 20, (3, 5): 1}
    assert found.within_two == pytest.approx(40 / 41, abs=1e-4)


def test_cut_answers_are_counted_and_the_first_of_the_input_are_named(tmp_path: Path) -> None:
    records = [record(place, 0.0, 1.0, finish=("length",) if place % 2 else ("stop",)) for place in range(99, -1, -1)]
    records += [record(100, 0.0, 1.0, finish=("length",), output=1)]
    found = read(tmp_path, *records)
    # One token is all that the last one was to have.
    assert found.cut == 50
    assert [each.number for each in found.cut_first] == list(range(2, 42, 2))
    assert found.first is not None and found.first.number == 1


def test_few_answers_have_a_dot_each_and_many_have_none(tmp_path: Path) -> None:
    assert len(read(tmp_path, *(record(place, 0.0, 1.0) for place in range(2_000))).dots) == 2_000
    many = read(tmp_path, *(record(place, 0.0, 1.0) for place in range(2_001)))
    assert many.dots == () and many.lengths == ((3, 3, 2_001),)


def test_what_failed_and_was_answered_later_is_not_shown_as_failed(tmp_path: Path) -> None:
    failed = [record(place, 0.0, 1.0, error="media_unavailable", output=0, finish=()) for place in range(3)]
    found = read(tmp_path, *failed, record(1, 0.0, 2.0, run=2))
    assert [each.custom_id for each in found.failed] == ["id 0", "id 2"]

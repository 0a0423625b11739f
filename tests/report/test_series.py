"""Time lines: what is drawn adds up to what was done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.report.schemas.series import BUCKETS, planned_series, replicas_series, run_series
from blendrun.simulate.base import Timeline

steps = st.lists(
    st.tuples(st.floats(0.001, 5), st.integers(0, 4000), st.integers(0, 300), st.integers(0, 4000)), min_size=1
)


@given(steps)
def test_tokens_and_seconds_are_all_there(made: list[tuple[float, int, int, int]]) -> None:
    seconds, prefill, decode, hits = (np.array(column, dtype=np.float64) for column in zip(*made, strict=True))
    nothing = np.zeros(len(made))
    line = Timeline(nothing, seconds, nothing, nothing, prefill, decode, hits, nothing + 7, nothing + 3)
    found = planned_series(line)
    assert found is not None
    assert len(found.prefill) == len(found.held) <= max(BUCKETS, 2)
    assert found.seconds == pytest.approx(seconds.sum(), rel=1e-3, abs=1e-4)
    width = seconds.sum() / len(found.prefill)
    for shown, done in ((found.prefill, prefill), (found.decode, decode), (found.hits, hits)):
        assert sum(shown) * width == pytest.approx(done.sum(), rel=1e-3, abs=1e-3)
    # What is held all the time is held in every bucket.
    assert found.held == pytest.approx([7.0] * len(found.held))


def step(number: int, time: float, **fields: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "step": number,
        "time": time,
        "prefill_tokens": 10,
        "decode_rows": 2,
        "hit_tokens": 5,
        "kv_used": 100,
        "sent_back": [],
        "admitted": [],
        "budget": None,
        "seconds": 1.0,
    }
    return known | fields


def write(path: Path, *lines: object) -> Path:
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" if isinstance(line, dict) else bytes(line) for line in lines))  # type: ignore[call-overload]
    return path


def test_engines_one_after_the_other_stand_end_to_end_and_torn_lines_are_left_out(tmp_path: Path) -> None:
    log = write(
        tmp_path / "steps.jsonl",
        step(0, 30.0, admitted=[0, 2]),
        step(1, 31.0, sent_back=[4], admitted=[4, 2]),
        b'{"step":2,"ti\n',
        step(0, 50.0, budget=20, admitted=[1]),
        step(1, 51.5, budget=20, prefill_tokens=20),
    )
    series, totals, admissions = run_series(log)
    assert series is not None
    assert series.seconds == pytest.approx(2.0 + 1.5 + 1.0)
    assert (totals.steps, totals.starts, totals.retracted) == (4, 2, 1)
    assert totals.budget_share == 0.75
    [first, second] = admissions.engines
    np.testing.assert_array_equal(first, [0.0, np.nan, 0.0, np.nan, 1.0])
    np.testing.assert_array_equal(second, [np.nan, 0.0])
    found = admissions.of(np.array([0, 1, 1, 0]), np.array([4, 1, 7, 1]))
    np.testing.assert_array_equal(found, [1.0, 0.0, np.nan, np.nan])


def test_steps_beside_each_other_are_not_put_end_to_end(tmp_path: Path) -> None:
    beside: dict[str, Any] = {"parallel": True, "hit_tokens": 0}
    decodes = [step(1 + number, 10.0 + number, prefill_tokens=0, decode_rows=4, **beside) for number in range(8)]
    # Begins two seconds after the first decode step and lasts four: told of when it is done.
    prefill = step(7, 12.0, prefill_tokens=400, decode_rows=0, seconds=4.0, **beside)
    log = write(tmp_path / "steps.jsonl", decodes[0] | {"step": 0}, *decodes[1:6], prefill, *decodes[6:])
    series, totals, _ = run_series(log)
    assert series is not None
    assert series.seconds == pytest.approx(8.0)
    assert (totals.steps, totals.starts) == (9, 1)
    width = series.seconds / len(series.prefill)
    assert sum(series.prefill) * width == pytest.approx(400, rel=1e-3)
    assert sum(series.decode) * width == pytest.approx(32, rel=1e-3)
    middle = round(4.0 / width)
    assert series.prefill[middle] == pytest.approx(100, rel=1e-2)
    assert series.decode[middle] == pytest.approx(4, rel=1e-2)
    assert series.held[middle] == pytest.approx(100, rel=1e-2)
    assert series.prefill[round(1.0 / width)] == 0.0


def test_without_a_step_there_is_no_line(tmp_path: Path) -> None:
    assert run_series(tmp_path / "none.jsonl")[0] is None
    assert run_series(write(tmp_path / "empty.jsonl"))[0] is None


def test_replicas_stand_side_by_side(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", *(step(number, 10.0 + number, budget=20) for number in range(10)))
    second = write(tmp_path / "b.jsonl", *(step(number, 50.0 + number, prefill_tokens=30) for number in range(20)))
    series, totals, admissions = replicas_series([first, second])
    assert series is not None
    assert series.seconds == pytest.approx(20.0)
    width = series.seconds / len(series.prefill)
    assert sum(series.prefill) * width == pytest.approx(10 * 10 + 20 * 30, rel=1e-3)
    assert series.held[10] == pytest.approx(200, rel=1e-2)
    assert series.held[-10] == pytest.approx(100, rel=1e-2)
    assert (totals.steps, totals.starts, totals.budget_share) == (30, 2, 0.5)
    assert admissions.engines == ()
    assert replicas_series([first])[0] == run_series(first)[0]
    assert replicas_series([])[0] is None

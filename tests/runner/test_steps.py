"""The tail of the step log: how far running answers are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blendrun.planner.feeder import QueuedRequest
from blendrun.store.steps import StepTail


def step(admitted: list[int], rows: int) -> bytes:
    known = {"step": 1, "time": 0.0, "seconds": 0.1, "prefill_tokens": 0, "kv_used": 5, "waiting": 0}
    return json.dumps({"admitted": admitted, "decode_rows": rows, **known}).encode() + b"\n"


def test_answers_grow_by_a_token_a_decode_step(tmp_path: Path) -> None:
    log = tmp_path / "steps.jsonl"
    log.write_bytes(step([0, 1], 5) + b'{"admitted": [9')
    tail = StepTail(log)
    torn = step([2], 2)
    with log.open("ab") as file:
        file.write(b"\n" + step([0], 0) + step([], 1) + step([1], 1) + step([], 2) + torn[:6])
    queue = [
        QueuedRequest(row=10, index=0, prompt=4),
        QueuedRequest(row=11, index=1, prompt=5),
        QueuedRequest(row=12, index=2, prompt=6),
    ]
    tail.read()
    assert tail.answered(queue) == {4: 3, 5: 2}
    tail.forget(queue[0])
    with log.open("ab") as file:
        file.write(torn[6:])
    tail.read()
    assert tail.answered(queue) == {5: 3, 6: 1}


def test_what_ended_before_its_steps_were_read_is_not_kept(tmp_path: Path) -> None:
    """Else a long job of short answers would hold them all."""
    log = tmp_path / "steps.jsonl"
    log.touch()
    tail = StepTail(log)
    queue = [QueuedRequest(row=row, index=row, prompt=row) for row in range(1000)]
    log.write_bytes(b"".join(step([queued.index], 1) for queued in queue))
    for queued in queue[:-1]:
        tail.forget(queued)
    tail.read()
    assert tail.answered(queue[-1:]) == {999: 1}
    tail.forget(queue[-1])
    assert tail.held == 0


def test_no_log_says_nothing(tmp_path: Path) -> None:
    tail = StepTail(tmp_path / "none")
    tail.read()
    assert tail.answered([QueuedRequest(row=0, index=0, prompt=0)]) == {}


def test_a_step_is_booked_with_its_own_seconds(tmp_path: Path) -> None:
    """Steps of two streams overlap, and are told of as they end."""
    log = tmp_path / "steps.jsonl"
    tail = StepTail(log)
    known = {"admitted": [], "kv_used": 5, "waiting": 0, "parallel": True}
    lines = [(1, 0.0, 0, 4, 0.01), (2, 0.01, 0, 4, 0.02), (0, 0.0, 100, 0, 1.0), (3, 0.03, 0, 4, 0.98)]
    log.write_bytes(
        b"".join(
            json.dumps(
                known | {"step": step, "time": time, "prefill_tokens": prefill, "decode_rows": rows, "seconds": seconds}
            ).encode()
            + b"\n"
            for step, time, prefill, rows, seconds in lines
        )
    )
    tail.read()
    stats = tail.stats(10)
    assert stats is not None
    assert (stats.steps, stats.prefill_tokens, stats.decode_tokens, stats.kv_used) == (4, 100, 12, 5)
    assert stats.prefill_seconds == pytest.approx(1.0)
    assert stats.decode_seconds == pytest.approx(1.01)


def logged(
    step: int, time: float, seconds: float, *, prefill: int = 0, rows: int = 0, **more: object
) -> dict[str, object]:
    known = {"admitted": [], "kv_used": 5, "waiting": 0, "parallel": False, "prefill_square": prefill**2}
    what = {"step": step, "time": time, "seconds": seconds, "prefill_tokens": prefill, "decode_rows": rows}
    return known | what | {"begun": int(prefill > 0), "context_tokens": 10 * rows} | more


def tail_of(folder: Path, *lines: dict[str, object]) -> StepTail:
    log = folder / "steps.jsonl"
    tail = StepTail(log, lambda prefill, square, rows, context, new: 0.1)
    log.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    tail.finish()
    return tail


def test_what_lies_between_two_steps_is_of_the_first_one_but_no_idle_time(tmp_path: Path) -> None:
    tail = tail_of(
        tmp_path,
        logged(0, 0.0, 0.2, prefill=8),
        logged(1, 0.25, 0.1, rows=2),
        # Nothing to do for ten seconds.
        logged(2, 10.35, 0.1, rows=2),
    )
    found = tail.sample.evidence
    assert sorted(found.seconds.tolist()) == pytest.approx([0.1, 0.15, 0.25])
    assert found.steps[found.steps[:, 0] > 0].tolist() == [[8, 64, 0, 0, 1]]
    stats = tail.stats(10)
    assert stats is not None
    assert (stats.paced_seconds, stats.priced_seconds) == pytest.approx((0.5, 0.3))


def test_a_new_engine_counts_its_time_from_zero(tmp_path: Path) -> None:
    tail = tail_of(tmp_path, logged(0, 50.0, 0.2, rows=2), logged(0, 0.0, 0.2, rows=2))
    assert tail.sample.evidence.seconds.tolist() == [0.2, 0.2]


def test_steps_side_by_side_and_logs_of_earlier_versions_teach_nothing(tmp_path: Path) -> None:
    earlier = logged(1, 1.0, 0.2, prefill=8)
    del earlier["prefill_square"]
    tail = tail_of(tmp_path, logged(0, 0.0, 0.2, prefill=8, parallel=True), earlier)
    assert len(tail.sample.evidence.seconds) == 0
    stats = tail.stats(10)
    assert stats is not None
    assert (stats.steps, stats.priced_seconds) == (2, 0.0)

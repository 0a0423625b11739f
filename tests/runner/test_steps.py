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

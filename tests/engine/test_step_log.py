"""The step log: how long steps take on a device that works on behind the scheduler, and who writes where."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import orjson
import pytest

from blendrun.engine.base import Planned
from blendrun.engine.scheduler.step_log import StepLog
from blendrun.engine.scheduler.step_times import Launched, StepTimes
from tests.engine.scheduler_loop import Loop, engine_settings, hooked


class Clock:
    """Seconds, as a test sets them."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    found = Clock()
    with patch("blendrun.engine.scheduler.step_times.time.monotonic", found):
        yield found


def launched(times: StepTimes, at: float, stream: str = "", **parts: Any) -> Any:
    result = SimpleNamespace()
    times.launch(result, Launched({"at": at}, at, stream), **parts)
    return result


def finished(times: StepTimes, clock: Clock, result: Any, at: float) -> list[float]:
    """When it began, and its seconds."""
    clock.now = at
    _, began, seconds = times.finish(result)
    return [began, seconds]


class TestStepTimes:
    def test_a_step_begins_when_the_one_before_it_is_done(self, clock: Clock) -> None:
        times = StepTimes()
        prefill = launched(times, 1.0)
        decode = launched(times, 1.01)
        assert finished(times, clock, prefill, 1.2) == pytest.approx([1.0, 0.2])
        late = launched(times, 1.21)
        assert finished(times, clock, decode, 1.21) == pytest.approx([1.2, 0.01])
        assert finished(times, clock, late, 1.22) == pytest.approx([1.21, 0.01])

    def test_or_when_it_is_launched_later(self, clock: Clock) -> None:
        times = StepTimes()
        assert finished(times, clock, launched(times, 1.0), 1.5) == [1.0, 0.5]
        assert finished(times, clock, launched(times, 4.0), 4.25) == [4.0, 0.25]

    def test_streams_do_not_wait_for_each_other(self, clock: Clock) -> None:
        times = StepTimes()
        prefill = launched(times, 1.0, "prefill", in_parts=True)
        assert finished(times, clock, launched(times, 1.5, "decode"), 2.0) == [1.5, 0.5]
        again = SimpleNamespace()
        times.go_on(again)
        assert not times.is_under_way(prefill)
        assert finished(times, clock, launched(times, 2.0, "decode"), 2.5) == [2.0, 0.5]
        assert finished(times, clock, again, 3.0) == [1.0, 2.0]

    def test_results_that_nobody_asks_for_are_forgotten(self) -> None:
        times = StepTimes()
        results = [launched(times, 1.0) for _ in range(30)]
        assert sum(map(times.is_under_way, results)) < 10
        assert times.is_under_way(results[-1])


@pytest.fixture
def settings(tiny_model: Path) -> Iterator[None]:
    with engine_settings(str(tiny_model)):
        yield


@pytest.mark.runtime
@pytest.mark.usefixtures("settings")
class TestOnTheLoop:
    """On SGLang's own scheduler, as the overlapped loop runs it."""

    def steps(self, folder: Path, device: str) -> tuple[list[dict[str, Any]], list[int]]:
        """Lines of a job of four requests; and how many lines there were at each wait for a result."""
        log = StepLog(str(folder / "steps.jsonl"), None)
        loop = Loop(2000, 8)
        loop.scheduler.device = device
        written: list[int] = []
        stream = SimpleNamespace(synchronize=lambda: written.append(log._steps))
        loop.scheduler.device_module = SimpleNamespace(current_stream=lambda: stream)
        for number in range(4):
            loop.submit(f"{number}", list(range(number * 100, number * 100 + 50)), 6, Planned(number, 6, 0), most=6)
        with hooked(log.hooks()):
            while (loop.scheduler.waiting_queue or loop.scheduler.last_batch) and loop.step < 50:
                loop.run()
        log._open(loop.scheduler).flush()
        return [orjson.loads(line) for line in (folder / "steps.jsonl").read_bytes().splitlines()], written

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_the_lines_are_the_same_wherever_it_is_timed(self, tmp_path: Path, device: str) -> None:
        lines, written = self.steps(tmp_path, device)
        assert [line["step"] for line in lines] == list(range(len(lines)))
        assert [line["mode"] for line in lines] == ["prefill", *["decode"] * 5]
        assert lines[0]["admitted"] == [0, 1, 2, 3]
        assert [(line["begun"], line["prefill_square"]) for line in lines] == [(4, 4 * 50**2), *[(0, 0)] * 5]
        # The first token comes with the prefill; a step attends to what was in the cache before it.
        assert [line["context_tokens"] for line in lines[1:]] == [4 * (50 + step) for step in range(5)]
        assert [line["decode_rows"] for line in lines] == [0, 4, 4, 4, 4, 4]
        assert not any(line["parallel"] for line in lines)
        # Each is written when it has been waited for.
        assert written == ([] if device == "cpu" else list(range(6)))

    def test_steps_of_a_device_follow_each_other(self, tmp_path: Path) -> None:
        lines, _ = self.steps(tmp_path, "cuda")
        for line, after in pairwise(lines):
            assert line["seconds"] > 0
            assert line["time"] + line["seconds"] <= after["time"] + 1e-9

    def test_schedulers_side_by_side_write_to_files_of_their_own(self, tmp_path: Path) -> None:
        from sglang.srt.runtime_context import get_parallel

        with get_parallel().override(dp_rank=1):
            self.steps_of_rank(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["dp1-steps.jsonl"]

    def steps_of_rank(self, folder: Path) -> None:
        log = StepLog(str(folder / "steps.jsonl"), None)
        loop = Loop(2000, 8)
        loop.submit("0", list(range(50)), 3, None, most=20)
        with hooked(log.hooks()):
            loop.run()

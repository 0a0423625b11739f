"""Engines that break their word: nothing is lost, and nothing is claimed that is not so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blendrun.engine.base import EngineInfo, Result
from blendrun.engine.replay import ReplayEngine, ReplaySettings
from blendrun.errors import EngineUnavailableError
from blendrun.events import Listener
from tests.runner.runner_job import line, lines_of, run, write

LINES = [line(f"id {row}", f"question {row}") for row in range(6)]


class Forgetful(ReplayEngine):
    """Ends in good order, one result short."""

    async def results(self) -> AsyncIterator[Result]:
        async for result in super().results():
            if result.row != 3:
                yield result


class Unstartable(ReplayEngine):
    async def start(self, listener: Listener) -> EngineInfo:
        raise EngineUnavailableError("no such argument: dtpe")


def test_a_request_the_engine_forgot_is_run_again_by_the_next_command(tmp_path: Path) -> None:
    job, output = write(tmp_path / "job.jsonl", *LINES), tmp_path / "out.jsonl"
    with pytest.raises(EngineUnavailableError, match="1 request unanswered"):
        run(output, job, engine=lambda: Forgetful(ReplaySettings()))
    assert not output.exists()
    assert run(output, job).exit_code == 0
    assert [answer["custom_id"] for answer in lines_of(output)] == [f"id {row}" for row in range(6)]


def test_a_failed_first_start_does_not_bind_the_next_command_to_its_settings(tmp_path: Path) -> None:
    job, output = write(tmp_path / "job.jsonl", *LINES), tmp_path / "out.jsonl"
    with pytest.raises(EngineUnavailableError):
        run(output, job, engine=lambda: Unstartable(ReplaySettings()), answer_settings={"dtpe": "float16"})
    assert run(output, job, answer_settings={"dtype": "float16"}).exit_code == 0

"""`--trace`: a file that trace viewers read, of phases and steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from blendrun.errors import OutputUnavailableError
from blendrun.events import Note, PhaseStarted
from blendrun.report.export.trace import ChromeTrace
from blendrun.store.folder import StateFolder
from blendrun.store.guard import Target
from tests.report.test_series import step


def logged(number: int, time: float) -> dict[str, Any]:
    return step(number, time, mode="decode", context_tokens=50, evictable=10, waiting=1)


def state_in(folder: Path) -> StateFolder:
    state = StateFolder(folder / "answers.jsonl")
    state.path.mkdir()
    return state


def test_phases_notes_and_this_invocations_steps_are_events(tmp_path: Path) -> None:
    path, state = tmp_path / "trace.json", state_in(tmp_path)
    steps = state.steps
    steps.write_bytes(orjson.dumps(logged(0, 5.0)) + b"\n")
    with ChromeTrace(Target(path, "--trace"), state) as trace:
        for name in ("index", "load", "run"):
            trace(PhaseStarted(name, f"detail of {name}"))
        trace(Note('a "note"'))
        with steps.open("ab") as file:
            file.writelines(orjson.dumps(logged(number, 40.0 + number)) + b"\n" for number in range(3))
    events = json.loads(path.read_bytes())["traceEvents"]
    phases = [event for event in events if event["ph"] == "X" and event["pid"] == 1]
    assert [event["name"] for event in phases] == ["index", "load", "run"]
    found = [event for event in events if event["ph"] == "X" and event["pid"] == 2]
    assert [event["args"]["step"] for event in found] == [0, 1, 2]
    assert [event["ts"] - found[0]["ts"] for event in found] == [0, 1_000_000, 2_000_000]
    # The first step begins when the engine is ready, which is when the next phase does.
    assert found[0]["ts"] == pytest.approx(phases[2]["ts"], abs=50_000)
    assert any(event["ph"] == "C" and event["args"].get("in use") == 100 for event in events)
    assert any(event["ph"] == "i" and event["name"] == 'a "note"' for event in events)


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputUnavailableError, match="--trace"),
        ChromeTrace(Target(tmp_path / "no" / "t.json", "--trace"), state_in(tmp_path)),
    ):
        pass


def test_names_that_are_no_text_and_steps_without_seconds(tmp_path: Path) -> None:
    path, state = tmp_path / "trace.json", state_in(tmp_path)
    steps = state.steps
    steps.write_bytes(orjson.dumps(logged(0, 5.0)) + b"\n")
    with ChromeTrace(Target(path, "--trace"), state, appended=False) as trace:
        trace(PhaseStarted("index", "\udcffjobs.jsonl"))
        lines = [logged(number, 40.0 + number) | {"seconds": None} for number in range(3)]
        steps.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    events = json.loads(path.read_bytes())["traceEvents"]
    found = [event for event in events if event["ph"] == "X" and event["pid"] == 2]
    assert [event["dur"] for event in found] == [0, 0, 0]


def test_prefill_beside_decode_has_a_row_of_its_own(tmp_path: Path) -> None:
    path, state = tmp_path / "trace.json", state_in(tmp_path)
    with ChromeTrace(Target(path, "--trace"), state, appended=False) as trace:
        trace(PhaseStarted("run", "requests"))
        lines = [logged(number, 40.0 + number) | {"parallel": True, "seconds": 1.0} for number in range(2)]
        lines.append(logged(2, 40.0) | {"parallel": True, "seconds": 2.0, "mode": "prefill"})
        state.steps.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    events = json.loads(path.read_bytes())["traceEvents"]
    found = [event for event in events if event["ph"] == "X" and event["pid"] == 2]
    assert [event["tid"] for event in found] == [1, 1, 2]
    names = {
        event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name" and event["pid"] == 2
    }
    assert names == {1: "steps", 2: "prefill beside"}


def test_each_replica_has_a_row_of_its_own(tmp_path: Path) -> None:
    path, state = tmp_path / "trace.json", state_in(tmp_path)
    with ChromeTrace(Target(path, "--trace"), state) as trace:
        trace(PhaseStarted("load", "engine"))
        trace(PhaseStarted("run", "requests"))
        for number in (1, 2, 10):
            state.of_replica(number).steps.write_bytes(orjson.dumps(logged(0, 5.0)) + b"\n")
    events = orjson.loads(path.read_bytes())["traceEvents"]
    names = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert names == ["blendrun", "engine 1", "engine 2", "engine 3"]
    spans = [event for event in events if event["ph"] == "X" and event["pid"] > 1]
    assert len({event["pid"] for event in spans}) == 3

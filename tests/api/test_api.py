"""The door for Python: the contract of the commands, as functions."""

from __future__ import annotations

import asyncio
import json
import pickle
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import numpy as np
import pytest

import blendrun
from blendrun.backends.options import RunArguments, RunOptions
from blendrun.backends.planning import PlanArguments, PlanOptions
from blendrun.errors import InputInvalidError, InputMissingError, TooManyErrorsError, UsageError
from blendrun.events import Event, Note, PhaseStarted, Progress
from tests.command import ids, write_jobs
from tests.imports import loaded_by


def run(folder: Path, rows: int = 12, **options: Any) -> Any:
    jobs = folder / "jobs.jsonl"
    if not jobs.exists():
        write_jobs(jobs, rows)
    return blendrun.run(jobs, output=folder / "out.jsonl", **{"engine": "replay", **options})


class TestRun:
    def test_every_line_is_answered_and_the_summary_says_so(self, tmp_path: Path) -> None:
        summary = run(tmp_path)
        assert (summary.counts.total, summary.counts.failed, summary.exit_code) == (12, 0, 0)
        assert ids(tmp_path / "out.jsonl") == [f"id {row}" for row in range(12)]

    def test_the_same_call_again_runs_nothing(self, tmp_path: Path) -> None:
        first, events = run(tmp_path), list[Event]()
        assert run(tmp_path, progress=events.append) == first
        assert "run" not in [event.name for event in events if isinstance(event, PhaseStarted)]
        assert Note("finished before; nothing to do") in events

    def test_several_files_and_options(self, tmp_path: Path) -> None:
        files = [write_jobs(tmp_path / "one.jsonl", 3), tmp_path / "two.jsonl"]
        files[1].write_bytes(files[0].read_bytes().replace(b"id ", b"other "))
        summary = blendrun.run(
            files, engine="replay", output=tmp_path / "out.jsonl", order="shuffled", engine_args={"slots": 2}, limit=5
        )
        assert (summary.counts.total, summary.order) == (5, "shuffled")

    def test_events_come_to_a_function(self, tmp_path: Path) -> None:
        events: list[Event] = []
        run(tmp_path, progress=events.append)
        assert [event.name for event in events if isinstance(event, PhaseStarted)][-1] == "write"
        assert max(event.done for event in events if isinstance(event, Progress) and event.unit == "requests") == 12

    def test_rich_is_lines_where_stderr_is_no_terminal(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        run(tmp_path, progress="rich")
        out, err = capfd.readouterr()
        assert out == "" and "phase=write" in err

    def test_it_says_nothing_unasked(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        run(tmp_path)
        assert capfd.readouterr() == ("", "")


class Name:
    """What has a path, and is no `Path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def test_values_come_as_python_and_numpy_have_them(tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 12)
    summary = blendrun.run(
        (each for each in [Name(jobs)]),
        engine="replay",
        output=Name(tmp_path / "out.jsonl"),
        limit=np.int64(7),  # type: ignore[arg-type]
        drain_timeout=np.float64(0.5),
        deadline=600,
        engine_args={"slots": np.int64(2)},
        trace=Name(tmp_path / "trace.json"),  # type: ignore[arg-type]
        overlap="auto",
    )
    assert summary.counts.total == 7
    assert (tmp_path / "trace.json").exists()


def test_a_timer_of_the_callers_goes_on(tmp_path: Path) -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    signal.setitimer(signal.ITIMER_REAL, 3600, 1800)
    try:
        run(tmp_path)
        left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
        assert 3000 < left < 3600 and interval == 1800
    finally:
        signal.signal(signal.SIGALRM, before)


class TestErrors:
    def failing(self, folder: Path) -> None:
        write_jobs(folder / "jobs.jsonl", 4)
        with (folder / "jobs.jsonl").open("a") as file:
            file.write("{}\n")

    def test_lines_that_failed_raise_when_all_is_written(self, tmp_path: Path) -> None:
        self.failing(tmp_path)
        with pytest.raises(blendrun.LinesFailedError, match=r"1 of 5 lines failed: see .*out\.jsonl\.errors") as caught:
            run(tmp_path)
        assert caught.value.exit_code == 3
        assert caught.value.summary.counts.failed == 1
        assert len(ids(tmp_path / "out.jsonl")) == 4
        assert run(tmp_path, errors_ok=True).counts.failed == 1

    def test_answers_that_were_cut_short_where_that_is_asked_for(self, tmp_path: Path) -> None:
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
        line = {"custom_id": "a", "url": "/v1/chat/completions", "body": body}
        jobs = tmp_path / "jobs.jsonl"
        jobs.write_text(json.dumps(line | {"metadata": {"reference_output_tokens": 50}}))
        assert run(tmp_path).cut_short_ids == ("a",)
        with pytest.raises(blendrun.LinesFailedError, match=r"1 of 1 answers were cut short: see .*cut-short\.jsonl"):
            run(tmp_path, fail_on_length=True)

    def test_too_many_of_them(self, tmp_path: Path) -> None:
        self.failing(tmp_path)
        with pytest.raises(TooManyErrorsError):
            run(tmp_path, max_errors=0)

    def test_each_end_of_the_command_is_an_exception(self, tmp_path: Path) -> None:
        with pytest.raises(InputMissingError, match="no such file"):
            blendrun.run(tmp_path / "none.jsonl", engine="replay")
        with pytest.raises(UsageError, match="which model"):
            blendrun.run(write_jobs(tmp_path / "jobs.jsonl", 1), output=tmp_path / "out.jsonl")
        (tmp_path / "bad.jsonl").write_text("no JSON\n")
        with pytest.raises(InputInvalidError):
            blendrun.run(tmp_path / "bad.jsonl", engine="replay", strict=True, output=tmp_path / "bad.out")

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"limit": 0}, "`int` >= 1 - at `limit`"),
            ({"order": "best"}, "'best' - at `order`; known are given, shuffled, sorted, lof, blended"),
            ({"device": "tpu"}, "known are auto, cpu, gpu"),
            ({"no_such": 1}, "unknown field `no_such`"),
            ({"engine_arg": ["a=1"]}, "engine_args is a dict of them"),
            ({"quiet": True}, "without progress=... nothing is shown"),
            ({"inputs": ("a",)}, "give the jobs as the first argument"),
            ({"replicas": "two"}, "`int.*`, got `str` - at `replicas`"),
            ({"endpoint": "/v2"}, "--endpoint /v2: known are /v1/chat/completions"),
            ({"drain_timeout": -1}, "at `drain_timeout`"),
            ({"deadline": "soon"}, "--deadline 'soon' is no duration"),
            ({"max_errors": "x%"}, "--max-errors x%: give a number of lines"),
            ({"shard": "9"}, "--shard takes i/n"),
            ({"engine": "none"}, "--engine none: known are sglang, replay"),
            ({"trace": 3}, "Expected a path, got `int` - at `trace`"),
            ({"engine_args": {"slots": object()}}, "engine_args: .* is no plain value"),
            ({"engine_args": {"slots": float("nan")}}, "engine_args: .*; give plain values"),
            ({"progress": "bar"}, 'give "rich", or a function'),
        ],
    )
    def test_options_are_checked_before_anything_begins(self, tmp_path: Path, wrong: Any, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            run(tmp_path, **wrong)
        assert not (tmp_path / "out.jsonl.blendrun").exists()

    @pytest.mark.parametrize("jobs", [None, 3, [3], [["a"]], [], [{"custom_id": "a"}]])
    def test_what_is_no_file_name_is_refused(self, jobs: Any) -> None:
        with pytest.raises(UsageError, match="jobs"):
            blendrun.run(jobs, engine="replay")

    def test_they_can_be_pickled(self, tmp_path: Path) -> None:
        self.failing(tmp_path)
        with pytest.raises(blendrun.LinesFailedError) as caught:
            run(tmp_path)
        again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # made here
        assert (str(again), again.summary) == (str(caught.value), caught.value.summary)

    @pytest.mark.parametrize("link", [False, True])
    @pytest.mark.parametrize("option", ["trace", "metrics_textfile"])
    def test_no_file_of_the_job_is_written_over(self, tmp_path: Path, option: str, link: bool) -> None:
        jobs = write_jobs(tmp_path / "jobs.jsonl", 3)
        before, other = jobs.read_bytes(), tmp_path / ".." / tmp_path.name / "jobs.jsonl"
        if link:
            other = tmp_path / "link"
            other.hardlink_to(jobs)
        with pytest.raises(UsageError, match="is a file of the job itself"):
            wanted: Any = {option: other}
            run(tmp_path, **wanted)
        for each in ("save", "report", "order_out"):
            with pytest.raises(UsageError, match="is a file of the job itself"):
                named: Any = {each: other}
                blendrun.plan(jobs, model="llama-3-8b", **named)
        assert jobs.read_bytes() == before

    def test_another_thread_is_refused(self, tmp_path: Path) -> None:
        caught: list[BaseException] = []

        def call() -> None:
            try:
                run(tmp_path)
            except UsageError as error:
                caught.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert "from the main thread" in str(caught[0])


class TestLoops:
    def test_a_running_loop_is_left_as_it_was(self, tmp_path: Path) -> None:
        """As in a notebook: the call is made by a task of a loop, which goes on afterwards."""

        async def cell() -> list[str]:
            run(tmp_path)
            await asyncio.sleep(0.001)
            assert asyncio.current_task() is not None
            return ids(tmp_path / "out.jsonl")

        assert len(asyncio.run(cell())) == 12

    def test_an_error_leaves_it_too(self, tmp_path: Path) -> None:
        async def cell() -> None:
            with pytest.raises(UsageError):
                run(tmp_path, order="best")
            with pytest.raises(InputMissingError):
                blendrun.run(tmp_path / "none.jsonl", engine="replay")
            await asyncio.sleep(0.001)

        asyncio.run(cell())


class TestRead:
    def test_answers_are_dicts_in_input_order(self, tmp_path: Path) -> None:
        run(tmp_path)
        answers = list(blendrun.read(tmp_path / "out.jsonl"))
        assert [answer["custom_id"] for answer in answers] == [f"id {row}" for row in range(12)]
        assert answers[0]["response"]["body"]["choices"][0]["message"]["content"]

    def test_failed_lines_come_behind_them_if_asked_for(self, tmp_path: Path) -> None:
        TestErrors().failing(tmp_path)
        run(tmp_path, errors_ok=True)
        assert len(list(blendrun.read(tmp_path / "out.jsonl"))) == 4
        *_, failed = blendrun.read(tmp_path / "out.jsonl", errors=True)
        assert failed["error"]["code"] == "invalid_request"

    def test_no_file_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(InputMissingError, match="a run writes it when all is answered"):
            blendrun.read(tmp_path / "none.jsonl")

    @pytest.mark.parametrize("library", ["pandas", "polars"])
    def test_a_frame_has_a_row_a_line(self, tmp_path: Path, library: Any) -> None:
        frames = pytest.importorskip(library)
        TestErrors().failing(tmp_path)
        run(tmp_path, errors_ok=True)
        frame = blendrun.read(tmp_path / "out.jsonl", errors=True, frame=library)
        assert isinstance(frame, frames.DataFrame)
        rows = frame.to_dict("records") if library == "pandas" else frame.to_dicts()
        assert [row["custom_id"] for row in rows[:4]] == [f"id {row}" for row in range(4)]
        assert rows[0]["text"] and rows[0]["completion_tokens"] > 0 and json.loads(rows[0]["response"])["choices"]
        assert rows[4]["error_code"] == "invalid_request"

    def test_answers_of_other_apis_have_the_same_columns(self, tmp_path: Path) -> None:
        pytest.importorskip("polars")
        said = [{"role": "user", "content": "Hi"}]
        lines = [
            {"custom_id": "a", "url": "/v1/responses", "body": {"input": "Hi", "max_output_tokens": 4}},
            {"custom_id": "b", "params": {"messages": said, "max_tokens": 4}},
            {"custom_id": "c", "url": "/v1/chat/completions", "body": {"messages": said, "max_tokens": 4}},
        ]
        (tmp_path / "jobs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        run(tmp_path)
        first, second, chat = blendrun.read(tmp_path / "out.jsonl", frame="polars").to_dicts()
        told = ("text", "prompt_tokens", "completion_tokens")
        assert [first[name] for name in told] == [second[name] for name in told] == [chat[name] for name in told]
        assert [row["finish_reason"] for row in (first, second, chat)] == ["max_output_tokens", "max_tokens", "length"]

    @pytest.mark.parametrize("library", ["pandas", "polars"])
    def test_columns_have_the_same_types_whatever_is_in_them(self, tmp_path: Path, library: Any) -> None:
        pytest.importorskip(library)
        path, types = tmp_path / "out.jsonl", []
        message = {"message": {"content": ["parts"]}}
        for lines in (
            [],
            [{"custom_id": "a", "response": None, "error": {"code": 7, "message": None}}],
            [{"custom_id": "b", "response": {"body": {"choices": [message]}}}, {"custom_id": 3, "error": "boom"}],
        ):
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            frame = blendrun.read(path, frame=library)
            types.append([str(kind) for kind in frame.dtypes])
            assert len(frame) == len(lines)
        assert types[0] == types[1] == types[2]

    @pytest.mark.parametrize("text", ["", "\n", "[]", "{}", '{"custom_id": ', "\x1f\x8b"])
    def test_a_line_that_is_no_answer_is_named(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "out.jsonl"
        path.write_text('{"custom_id": "a"}\n' + text + "\n")
        with pytest.raises(InputInvalidError, match=r"out\.jsonl, line 2: no .*; is it the output of a run\?"):
            list(blendrun.read(path))

    @pytest.mark.parametrize("frame", ["numpy", "json", True])
    def test_another_library_is_refused(self, tmp_path: Path, frame: Any) -> None:
        run(tmp_path)
        with pytest.raises(UsageError, match="known are pandas, polars"):
            blendrun.read(tmp_path / "out.jsonl", frame=frame)

    def test_a_library_that_is_missing_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run(tmp_path)
        monkeypatch.setitem(__import__("sys").modules, "polars", None)
        with pytest.raises(UsageError, match="pip install polars"):
            blendrun.read(tmp_path / "out.jsonl", frame="polars")


def test_a_plan_is_what_the_command_prints(tmp_path: Path) -> None:
    lines = [{"prompt_tokens": 100 + row, "output_tokens": 10 + row} for row in range(50)]
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = blendrun.plan(
        tmp_path / "trace.jsonl", model="llama-3-8b", hardware="a100-80g", order_out=tmp_path / "order"
    )
    assert found.requests == 50
    assert len((tmp_path / "order").read_text().splitlines()) == 50
    with pytest.raises(UsageError, match=r"at `orders\[1\]`; known are given"):
        blendrun.plan(tmp_path / "trace.jsonl", model="llama-3-8b", orders=("given", "best"))


@pytest.mark.parametrize(("arguments", "options"), [(RunArguments, RunOptions), (PlanArguments, PlanOptions)])
def test_typed_arguments_are_those_of_the_options(arguments: type, options: type[msgspec.Struct]) -> None:
    positional = {"inputs", "model", "output"}
    assert set(get_type_hints(arguments)) == set(options.__struct_fields__) - positional


def test_plans_take_lists_and_texts(tmp_path: Path) -> None:
    (tmp_path / "trace.jsonl").write_text('{"prompt_tokens": 100, "output_tokens": 10}\n' * 20)
    found = blendrun.plan(
        tmp_path / "trace.jsonl",
        model="llama-3-8b",
        hardware=["a100-80g", "h100-sxm"],
        gpus=1,
        orders="given, sorted",
        price=2.5,
    )
    assert len(found.machines) == 2
    for price in ("-1", "nan", "x"):
        with pytest.raises(UsageError, match="--price takes"):
            blendrun.plan(tmp_path / "trace.jsonl", model="llama-3-8b", hardware="a100-80g", price=price)


def test_names_are_there_after_a_plain_import() -> None:
    code = "import blendrun; print(blendrun.errors.UsageError, blendrun.events.Event, dir(blendrun))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in ("run", "plan", "read", "errors", "events"))


def test_importing_it_loads_no_runtime() -> None:
    assert loaded_by("blendrun.backends").isdisjoint({"torch", "sglang", "transformers", "pandas", "polars"})


def test_the_readme_s_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert code.count('model="qwen2.5-7b"') == 1
    write_jobs(tmp_path / "jobs.jsonl", 5)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code.replace('model="qwen2.5-7b"', 'engine="replay"'), names)
    assert names["summary"].counts.failed == 0
    assert len(names["table"]) == 5

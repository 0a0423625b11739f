"""`blendrun.Engine` on the replay engine: shapes, order, errors, threads, and what is left of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import blendrun
from blendrun.backends import host as host_module
from blendrun.backends import host_process
from blendrun.backends.host import Ended, Host
from blendrun.backends.options import RunOptions
from blendrun.engine.kept import KeptEngines
from blendrun.errors import BlendrunError, EngineUnavailableError, UsageError
from blendrun.runner.stop import Stopped, stop_error
from tests.answering_server import answering
from tests.command import ids, write_jobs

GREEDY = {"temperature": 0, "max_new_tokens": 4}


@pytest.fixture(scope="module")
def engine() -> Iterator[blendrun.Engine]:
    with blendrun.Engine("any", options={"engine": "replay"}) as found:
        yield found


class TestGenerate:
    def test_one_prompt_is_a_dict_and_several_a_list_in_order(self, engine: blendrun.Engine) -> None:
        one = engine.generate("hello", GREEDY)
        assert isinstance(one, dict)
        assert one["text"]
        assert one["meta_info"]["completion_tokens"] == 4
        several = engine.generate(["a", "b", "c"], [{"max_new_tokens": count} for count in (1, 2, 3)])
        assert [each["meta_info"]["completion_tokens"] for each in several] == [1, 2, 3]
        assert isinstance(engine.generate(["a"], GREEDY), list)

    def test_token_ids(self, engine: blendrun.Engine) -> None:
        assert isinstance(engine.generate(input_ids=[1, 2], sampling_params=GREEDY), dict)
        found = engine.generate(input_ids=[[1, 2, 3], [4]], sampling_params=GREEDY)
        longer, shorter = (each["meta_info"]["prompt_tokens"] for each in found)
        assert longer > shorter

    def test_choices_of_a_prompt_stand_side_by_side(self, engine: blendrun.Engine) -> None:
        assert len(engine.generate(["a", "b"], {"n": 2, "max_new_tokens": 2})) == 4
        assert len(engine.generate("a", {"n": 3, "max_new_tokens": 2})) == 3

    def test_no_prompts_are_no_answers(self, engine: blendrun.Engine) -> None:
        assert engine.generate([], GREEDY) == []

    def test_a_bad_request_costs_no_other_its_answer(self, engine: blendrun.Engine) -> None:
        with pytest.raises(
            blendrun.RequestsFailedError, match="1 of 3 requests failed; request 1: the prompt is empty"
        ) as failed:
            engine.generate(["a", "", "c"], GREEDY)
        assert [sorted(each)[0] for each in failed.value.answers] == ["meta_info", "error", "meta_info"]
        assert failed.value.answers[1]["error"]["code"] == "invalid_request"

    @pytest.mark.parametrize("bad", ["\ud800", [1, 2**70], [{1}]])
    def test_what_cannot_be_json_is_one_failed_request(self, engine: blendrun.Engine, bad: Any) -> None:
        field = "text" if isinstance(bad, str) else "input_ids"
        for lines in ([{"text": "a"}, {field: bad}], [{field: bad}]):
            found = dict(engine.stream(lines))
            assert sorted(found) == list(range(len(lines)))
            assert "cannot be written as JSON" in found[len(lines) - 1]["error"]["message"]
        with pytest.raises(blendrun.RequestsFailedError, match=r"1 of 2 requests failed; request 1: .* as JSON"):
            engine.generate(**{"prompt": ["a", bad]} if field == "text" else {"input_ids": [[1], bad]})

    @pytest.mark.parametrize(
        ("arguments", "what"),
        [
            ({}, "`prompt` or `input_ids`, one of them"),
            ({"prompt": "a", "input_ids": [1]}, "one of them"),
            ({"prompt": "a", "stream": True}, r"does not take stream: .*Engine.stream"),
            ({"prompt": "a", "image_data": "x"}, "does not take image_data"),
            ({"prompt": ["a", "b"], "sampling_params": [{}]}, "sampling_params: 1 for 2 prompts"),
        ],
    )
    def test_arguments_that_do_not_fit(self, engine: blendrun.Engine, arguments: dict[str, Any], what: str) -> None:
        with pytest.raises(UsageError, match=what):
            engine.generate(**arguments)


class TestOthers:
    def test_chats(self, engine: blendrun.Engine) -> None:
        chat = [{"role": "user", "content": "hi"}]
        assert engine.chat(chat, max_tokens=3)["object"] == "chat.completion"
        assert [each["usage"]["completion_tokens"] for each in engine.chat([chat, chat], max_tokens=3)] == [3, 3]

    def test_vectors(self, engine: blendrun.Engine) -> None:
        assert "embedding" in engine.encode("hi")
        assert len(engine.encode([[1, 2], [3, 4, 5]])) == 2

    def test_a_stream_has_every_place_once(self, engine: blendrun.Engine) -> None:
        lines: list[Any] = [
            "text",
            {"input_ids": [1], "sampling_params": GREEDY},
            {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2},
            {"url": "/v1/completions", "body": {"prompt": "x", "max_tokens": 2}},
            {"text": ""},
        ]
        found = dict(engine.stream(lines))
        assert sorted(found) == [0, 1, 2, 3, 4]
        assert found[2]["object"] == "chat.completion"
        assert found[4]["error"]["code"] == "invalid_request"
        with pytest.raises(UsageError, match="a request has `text`"):
            list(engine.stream([{"prompt": "x"}]))

    def test_a_stream_that_nobody_reads_on_leaves_the_engine_usable(self, engine: blendrun.Engine) -> None:
        answers = engine.stream([{"text": "x", "sampling_params": GREEDY} for _ in range(50)])
        next(answers)
        with pytest.raises(UsageError, match="a stream is not at its end"):
            engine.generate("a", GREEDY)
        with pytest.raises(UsageError, match="a stream is not at its end"):
            next(engine.stream(["a"]))
        answers.close()  # type: ignore[attr-defined]
        assert engine.generate("a", GREEDY)["text"]
        next(engine.stream(["a", "b"]))
        assert engine.generate("a", GREEDY)["text"]

    def test_another_thread_waits_for_a_streams_end(self, engine: blendrun.Engine) -> None:
        answers, found = engine.stream(["a", "b"]), list[Any]()
        next(answers)
        thread = threading.Thread(target=lambda: found.append(engine.generate("a", GREEDY)))
        thread.start()
        assert len(list(answers)) == 1
        thread.join()
        assert found[0]["text"]

    def test_calls_inside_an_async_stream(self, engine: blendrun.Engine) -> None:
        async def calls() -> list[Any]:
            others: list[asyncio.Task[Any]] = []
            async for _ in engine.async_stream(["a", "b"]):
                with pytest.raises(UsageError, match="a stream is not at its end"):
                    await engine.async_generate("a", GREEDY)
                with pytest.raises(UsageError, match="a stream is not at its end"):
                    engine.generate("a", GREEDY)
                # More than a loop has threads.
                others += [
                    asyncio.create_task(engine.async_generate("a", GREEDY)) for _ in range(20 - 19 * len(others))
                ]
                await asyncio.sleep(0)
            forgotten = engine.async_stream(["a", "b"])
            await anext(forgotten)
            await forgotten.aclose()  # type: ignore[attr-defined]
            return await asyncio.gather(*others)

        assert all(each["text"] for each in asyncio.run(calls()))

    def test_beside_a_running_loop_and_in_threads(self, engine: blendrun.Engine) -> None:
        async def both() -> list[Any]:
            found = [place async for place, _ in engine.async_stream(["a", "b"])]
            return [*found, *await asyncio.gather(*(engine.async_generate("a", GREEDY) for _ in range(3)))]

        found = asyncio.run(both())
        assert sorted(found[:2]) == [0, 1]
        assert all(each["text"] for each in found[2:])
        answers: list[Any] = []
        threads = [threading.Thread(target=lambda: answers.append(engine.generate("a", GREEDY))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 3


class TestLife:
    def test_nothing_is_left_of_it(self) -> None:
        engine = blendrun.Engine("any", options={"engine": "replay"})
        engine.generate("a", GREEDY)
        host, folder = engine._host.pid, engine._scratch.path
        assert host is not None
        assert folder.is_dir()
        engine.shutdown()
        engine.shutdown()
        assert not Path(f"/proc/{host}").exists()
        assert not folder.exists()
        with pytest.raises(UsageError, match="was shut down"):
            engine.generate("a", GREEDY)

    def test_options_that_there_are_not(self) -> None:
        for options, what in (
            ({"ordr": "given"}, "ordr"),
            ({"output": "x"}, "output belong"),
            ({"order": "x"}, "order"),
        ):
            with pytest.raises(UsageError, match=what):
                blendrun.Engine("any", options=options)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="which model"):
            blendrun.Engine()

    @pytest.mark.parametrize("call", ["generate(['a'] * 5)", "stream(['a'] * 5)"])
    def test_an_interrupt_ends_the_call_and_all_processes(self, tmp_path: Path, call: str) -> None:
        asked = threading.Event()

        def never(*_: Any) -> None:
            asked.set()
            time.sleep(3600)

        with answering("m", never) as address:
            script = (
                # A shell that starts the tests in the background has it ignored.
                "import blendrun, signal\n"
                "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
                f"engine = blendrun.Engine(options={{'engine': '{address}', 'drain_timeout': 0.1}})\n"
                "try:\n"
                f"    list(engine.{call})\n"
                "except KeyboardInterrupt:\n"
                "    print('interrupted', engine._host.pid, flush=True)\n"
            )
            process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
            try:
                assert asked.wait(60)
                host = _child_of(process.pid)
                process.send_signal(signal.SIGINT)
                assert process.communicate(timeout=60)[0] == "interrupted None\n"
            finally:
                process.kill()
        assert not Path(f"/proc/{host}").exists()

    def test_a_shutdown_from_another_thread_ends_a_call(self) -> None:
        asked, raised = threading.Event(), list[BaseException]()

        def never(*_: Any) -> None:
            asked.set()
            time.sleep(3600)

        def call() -> None:
            try:
                called.generate("a")
            except BlendrunError as error:
                raised.append(error)

        with answering("m", never) as address:
            called = blendrun.Engine(options={"engine": address, "drain_timeout": 0.1})
            thread = threading.Thread(target=call)
            thread.start()
            assert asked.wait(60)
            assert called._host._now is not None
            process = called._host._now.process
            called.shutdown()
            thread.join()
        # By itself, and not by force.
        assert process.returncode == 0
        assert isinstance(raised[0], EngineUnavailableError)
        with pytest.raises(EngineUnavailableError, match="was ended"):
            called._host.run(RunOptions.of({"engine": "replay", "inputs": ("x",)}))

    def test_a_caller_that_is_killed_takes_its_host_along(self, tmp_path: Path) -> None:
        script = (
            "import blendrun, time\n"
            "engine = blendrun.Engine('any', options={'engine': 'replay'})\n"
            "engine.generate('a')\n"
            "print(engine._host.pid, flush=True)\n"
            "time.sleep(60)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
        assert process.stdout is not None
        host = int(process.stdout.readline())
        process.kill()
        process.wait()
        _gone(host)

    def test_also_where_a_process_that_it_forked_goes_on(self, tmp_path: Path) -> None:
        script = (
            "import blendrun, os, time\n"
            "engine = blendrun.Engine('any', options={'engine': 'replay'})\n"
            "engine.generate('a')\n"
            "if forked := os.fork():\n"
            "    print(engine._host.pid, forked, flush=True)\n"
            "time.sleep(60)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
        assert process.stdout is not None
        host, forked = map(int, process.stdout.readline().split())
        process.kill()
        process.wait()
        try:
            _gone(host)
        finally:
            os.kill(forked, signal.SIGKILL)


class TestHost:
    def test_runs_one_after_the_other_and_says_how_each_ended(self, tmp_path: Path) -> None:
        jobs, host = write_jobs(tmp_path / "jobs.jsonl", 5), Host()
        try:
            given = {"inputs": (str(jobs),), "engine": "replay"}
            ended = host.run(RunOptions.of({**given, "output": tmp_path / "one.jsonl"}))
            assert (ended.exit_code, ended.message) == (0, "")
            assert len(ids(tmp_path / "one.jsonl")) == 5
            bad = tmp_path / "bad.jsonl"
            bad.write_text(jobs.read_text() + "no json\n")
            ended = host.run(RunOptions.of({**given, "inputs": (str(bad),), "output": tmp_path / "two.jsonl"}))
            assert (ended.exit_code, ended.message.partition(" lines")[0]) == (3, "1 of 6")
            gone = RunOptions.of({**given, "inputs": ("nowhere.jsonl",), "output": tmp_path / "three.jsonl"})
            assert host.run(gone).exit_code == 66
            host.release()
        finally:
            host.close()

    def test_a_release_is_no_run_that_could_be_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(["sleep", "600"])
        found = host_module._Process(process, ours, ours.makefile("rwb", buffering=0))
        host = Host()
        host._now = found
        thread = threading.Thread(target=host.release)
        thread.start()
        try:
            with theirs:
                assert json.loads(theirs.recv(1 << 16)) == {"type": "release"}
                assert not host.stop_run()
                theirs.send(b'{"type":"released"}\n')
                thread.join()
            assert process.poll() is None, "it got no signal"
        finally:
            process.kill()
            host.close()

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
    def test_a_signal_from_before_it_has_begun_stops_a_run(self, tmp_path: Path, number: int, code: int) -> None:
        jobs, host, ended = write_jobs(tmp_path / "jobs.jsonl", 5), Host(), list[int]()
        assert not host.stop_run(), "nothing runs"
        try:
            with answering("m", lambda *_: time.sleep(3600)) as address:
                given = {"inputs": (str(jobs),), "engine": address, "output": tmp_path / "out.jsonl"}
                options = RunOptions.of({**given, "drain_timeout": 0.1})
                thread = threading.Thread(target=lambda: ended.append(host.run(options).exit_code))
                thread.start()
                while not host.stop_run(number):
                    time.sleep(0.001)
                thread.join()
        finally:
            host.close()
        assert ended == [code]

    def test_a_signal_at_any_time_of_a_run_is_how_it_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = signal.getsignal(signal.SIGTERM)
        given = {"engine": "replay", "inputs": ("none",)}
        ended = host_process._run(given, lambda: os.kill(os.getpid(), signal.SIGTERM), KeptEngines())
        assert ended.exit_code == 75
        assert signal.getsignal(signal.SIGTERM) == before

        @contextmanager
        def late() -> Iterator[None]:
            yield
            raise Stopped(stop_error(signal.SIGTERM))

        # As handlers are given back.
        monkeypatch.setattr(host_process, "stopping_by_exception", late)
        monkeypatch.setattr(host_process, "_ended", lambda *_: Ended(0))
        assert host_process._run(given, lambda: None, KeptEngines()).exit_code == 75

    def test_one_that_is_killed_is_told_and_the_next_run_has_another(self, tmp_path: Path) -> None:
        jobs, host, killed = write_jobs(tmp_path / "jobs.jsonl", 5), Host(), threading.Event()

        def answer(*_: Any) -> Any:
            if not killed.is_set():
                killed.set()
                assert host.pid is not None
                os.kill(host.pid, signal.SIGKILL)
            return {"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}], "usage": {}}

        try:
            with answering("m", answer) as address:
                given = {"inputs": (str(jobs),), "engine": address, "output": tmp_path / "out.jsonl"}
                options = RunOptions.of(given)
                with pytest.raises(EngineUnavailableError, match="answers so far are kept"):
                    host.run(options)
                assert host.run(options).exit_code == 0
        finally:
            host.close()
        assert len(ids(tmp_path / "out.jsonl")) == 5


def _child_of(parent: int) -> int:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        # Of any of its threads.
        found = [each for path in Path(f"/proc/{parent}/task").glob("*/children") for each in path.read_text().split()]
        if found:
            return int(found[0])
        time.sleep(0.01)
    raise AssertionError("no process was started")


def _gone(pid: int) -> None:
    until = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < until
        time.sleep(0.02)

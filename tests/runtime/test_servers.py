"""Servers of their own kind and their own process: SGLang's, and vLLM's where BLENDRUN_VLLM_PYTHON has one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from blendrun.engine.base import EngineSettings
from blendrun.engine.settings import environment
from blendrun.models import resolve_model
from tests.runtime import requests
from tests.runtime.conftest import blendrun, read_lines
from tests.runtime.test_kill import alive_in_group, wait_for

pytestmark = pytest.mark.runtime

VLLM_PYTHON = os.environ.get("BLENDRUN_VLLM_PYTHON")
SERVERS = [
    "sglang",
    pytest.param(
        "vllm",
        marks=pytest.mark.skipif(not VLLM_PYTHON, reason="BLENDRUN_VLLM_PYTHON names no Python that has vLLM"),
    ),
]
GROUPS, EACH = 4, 4
ANSWERED_BEFORE_THE_KILL = 4
START_S = 300.0


def command_of(kind: str, port: int, model: Path) -> tuple[list[str], dict[str, str]]:
    """Command line and variables of a server."""
    where = ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    if kind == "vllm":
        assert VLLM_PYTHON is not None
        command = [VLLM_PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), *where]
        command += ["--max-model-len", "1024", "--max-num-seqs", "4", "--block-size", "32", "--enforce-eager"]
        command += ["--enable-prompt-tokens-details", "--served-model-name", "small"]
        return command, {"VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [sys.executable, "-m", "sglang.launch_server", "--model-path", str(model), *where]
    command += ["--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch"]
    command += ["--max-total-tokens", "4096", "--max-running-requests", "4", "--context-length", "1024"]
    command += ["--enable-cache-report", "--served-model-name", "small", "--sleep-on-idle"]
    return command, environment(EngineSettings(str(model), "cpu", len(os.sched_getaffinity(0))))


class Server:
    """One at a time on one port; started again it is another process."""

    def __init__(self, kind: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._kind, self._log = kind, folder / "server.out"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        model = resolve_model("smollm2-135m", platform="cpu").path
        command, variables = command_of(self._kind, self.port, model)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=os.environ | variables, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        assert wait_for(lambda: self._up() or self._ended(), START_S), self._said()
        assert not self._ended(), self._said()

    def kill(self) -> None:
        if (process := self._process) is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert wait_for(lambda: not alive_in_group(process.pid), 30.0)
            self._process = None

    def _up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/v1/models", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]


@contextmanager
def server(kind: str, folder: Path) -> Iterator[Server]:
    found = Server(kind, folder)
    try:
        found.start()
        yield found
    finally:
        found.kill()


def lines() -> list[dict[str, Any]]:
    """Groups that share a passage, and three lines that a server refuses or bounds."""
    asked = [
        requests.chat(
            f"{group} {number}",
            [{"role": "user", "content": f"Text {group}. {requests.PASSAGE}\nSay {number} in words."}],
            max_tokens=12,
            model="somebody-elses",
        )
        for number in range(EACH)
        for group in range(GROUPS)
    ]
    long = requests.chat("too long", [{"role": "user", "content": "word " * 3000}], max_tokens=4)
    more = requests.chat("asks for more than there is", [{"role": "user", "content": "Hi"}], max_tokens=100_000)
    more["body"]["stop"] = ["\n", ".", "!", "?"]
    said = [{"role": "user", "content": "Say one word."}]
    # vLLM refuses several greedy answers, which would be equal.
    twice = requests.chat("two choices", said, n=2, max_tokens=3, temperature=1.0)
    return [*asked, long, more, twice]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_answers_a_job_is_killed_half_way_and_comes_back(kind: str, tmp_path: Path) -> None:
    job, output = tmp_path / "job.jsonl", tmp_path / "answers.jsonl"
    wanted = lines()
    job.write_bytes(b"\n".join(map(orjson.dumps, wanted)) + b"\n")
    state = tmp_path / "answers.jsonl.blendrun"
    with server(kind, tmp_path) as found:
        # The run waits for it.
        killed: list[float] = []

        def kill_half_way() -> None:
            def answered() -> bool:
                journal = state / "journal"
                return journal.exists() and journal.read_bytes().count(b"\n") > ANSWERED_BEFORE_THE_KILL

            if wait_for(answered, START_S):
                found.kill()
                killed.append(time.monotonic())
                found.start()

        thread = threading.Thread(target=kill_half_way)
        thread.start()
        finished = blendrun(
            "run", job, "--model", "smollm2-135m", "--engine", found.address, "-o", output, "--order", "blended",
            "--engine-arg", "tries=3", "--engine-arg", f"wait={START_S:.0f}", "--engine-arg", "concurrency=4",
            timeout=900,
        )  # fmt: skip
        thread.join()
        assert killed, finished.stderr
    assert finished.returncode == 3, finished.stderr
    answers = {each["custom_id"]: each["response"]["body"] for each in read_lines(output)}
    refused = read_lines(Path(f"{output}.errors.jsonl"))
    assert sorted([*answers, *(each["custom_id"] for each in refused)]) == sorted(each["custom_id"] for each in wanted)
    assert [(each["custom_id"], each["error"]["code"]) for each in refused] == [("too long", "context_length_exceeded")]
    assert len(answers["two choices"]["choices"]) == 2
    assert all(each["model"] == "small" for each in answers.values())
    summary = orjson.loads((state / "summary.json").read_bytes())
    assert len(summary["restarts"]) == 1
    assert summary["platform"] == "server"
    assert list(summary["versions"]) == ["blendrun", kind]
    # It was asked in the order of the plan, and says what it had computed before.
    assert summary["tokens"]["cached"] > 0.2 * summary["tokens"]["prompt"]
    assert "is away" in summary["restarts"][0]["reason"]
    assert (state / "engine.log").read_text().count("again in") > 0

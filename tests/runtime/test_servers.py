"""Servers of their own kind and their own process: SGLang's, and vLLM's where BLENDRUN_VLLM_PYTHON has one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendrun.engine.base import EngineSettings
from blendrun.engine.settings import environment
from tests import needs
from tests.command import blendrun, lines_of
from tests.processes import wait_for, wait_for_end
from tests.runtime import requests

pytestmark = [pytest.mark.runtime, pytest.mark.timeout(1800)]

VLLM_PYTHON = os.environ.get("BLENDRUN_VLLM_PYTHON")
SERVERS = [
    "sglang",
    pytest.param(
        "vllm",
        marks=pytest.mark.skipif(not VLLM_PYTHON, reason=needs.VLLM),
    ),
]
GROUPS, EACH = 4, 4
# Long enough for a kill in the middle.
TOKENS = 200
ANSWERED_BEFORE_THE_KILL = 4
# For a server that has gone: longer than it takes to come back on a machine with other work.
AWAY_S = 1500.0


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
    return command, environment(EngineSettings(str(model), "cpu", threads=1))


class Server:
    """One at a time on one port; started again it is another process."""

    def __init__(self, kind: str, model: Path, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._kind, self._model, self._log = kind, model, folder / "server.out"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command, variables = command_of(self._kind, self.port, self._model)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=os.environ | variables, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        if (process := self._process) is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            wait_for_end(process.pid)
            self._process = None


@contextmanager
def server(kind: str, model: Path, folder: Path) -> Iterator[Server]:
    found = Server(kind, model, folder)
    try:
        found.start()
        yield found
    finally:
        found.kill()


def lines(kind: str) -> list[dict[str, Any]]:
    """Groups that share a passage, and three lines that a server refuses or bounds."""
    asked = [
        requests.chat(
            f"{group} {number}",
            [{"role": "user", "content": f"Text {group}. {requests.PASSAGE}\nSay {number} in words."}],
            max_tokens=TOKENS,
            ignore_eos=True,
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
    return [*asked, long, more, twice, *(others() if kind == "sglang" else ())]


def others() -> list[dict[str, Any]]:
    """Lines of other urls that a server of a model that generates has, or is asked as chats."""
    said, greedy = [{"role": "user", "content": "Say one word."}], {"temperature": 0, "model": "somebody-elses"}
    score = {"query": "The sky is", "items": [" blue", " green"], "label_token_ids": [504, 3575], "apply_softmax": True}
    return [
        requests.chat("chat", said, max_tokens=8),
        {"custom_id": "score", "url": "/v1/score", "body": score},
        {"custom_id": "responses", "url": "/v1/responses", "body": {"input": said, "max_output_tokens": 8, **greedy}},
        {"custom_id": "messages", "params": {"messages": said, "max_tokens": 8, **greedy}},
    ]


def check_a_table(address: str, model: Path, folder: Path) -> None:
    """Rows with a schema, and one without a prompt: the table has what the journal has, in the rows' order."""
    rows = {"id": ["a", "b", "c"], "question": ["Is it?", None, "Is it not?"], "more": [{"x": 1}, None, {"x": 3}]}
    pq.write_table(pa.table(rows), folder / "rows.parquet")
    (folder / "schema.json").write_text('{"type": "boolean"}')
    words = ("--schema", folder / "schema.json", "--id-column", "id", "--max-tokens", "8", "--temperature", "0")
    output = folder / "out.parquet"
    done = blendrun(
        "run", folder / "rows.parquet", *words, "--model", model, "--engine", address, "-o", output, process=True
    )
    assert done.returncode == 3, done.stderr
    table = pq.read_table(output)
    assert table.select(["id", "question", "more"]).to_pydict() == rows
    lines = map(orjson.loads, blendrun("answers", output).stdout.splitlines())
    texts = {line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in lines}
    assert table["response"].to_pylist() == [texts["a"], None, texts["c"]]
    assert table["parsed"].to_pylist() == [orjson.loads(texts["a"]), None, orjson.loads(texts["c"])]
    assert table["error"].to_pylist() == [None, "row 2: `question` is null", None]
    assert [bool(tokens) for tokens in table["completion_tokens"].to_pylist()] == [True, False, True]


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_answers_a_job_is_killed_half_way_and_comes_back(kind: str, tmp_path: Path, tiny_model: Path) -> None:
    job, output = tmp_path / "job.jsonl", tmp_path / "answers.jsonl"
    wanted = lines(kind)
    job.write_bytes(b"\n".join(map(orjson.dumps, wanted)) + b"\n")
    state = tmp_path / "answers.jsonl.blendrun"
    with server(kind, tiny_model, tmp_path) as found:
        # The run waits for it.
        over = threading.Event()
        killed: list[float] = []

        def kill_half_way() -> None:
            def answered() -> bool:
                journal = state / "journal"
                return journal.exists() and journal.read_bytes().count(b"\n") > ANSWERED_BEFORE_THE_KILL

            wait_for(lambda: answered() or over.is_set())
            if not over.is_set():
                found.kill()
                killed.append(time.monotonic())
                found.start()

        thread = threading.Thread(target=kill_half_way)
        thread.start()
        finished = blendrun(
            "run", job, "--model", tiny_model, "--engine", found.address, "-o", output, "--order", "blended",
            "--engine-arg", "tries=3", "--engine-arg", f"wait={AWAY_S:.0f}", "--engine-arg", "concurrency=4",
            process=True,
        )  # fmt: skip
        over.set()
        thread.join()
        assert killed, finished.stderr
        check_a_table(found.address, tiny_model, tmp_path)
    assert finished.returncode == 3, finished.stderr
    results = {each["custom_id"]: each for each in lines_of(output)}
    message = results.get("messages")
    answers = {name: each["response"]["body"] for name, each in results.items() if "response" in each}
    refused = lines_of(Path(f"{output}.errors.jsonl"))
    assert sorted([*results, *(each["custom_id"] for each in refused)]) == sorted(each["custom_id"] for each in wanted)
    assert [(each["custom_id"], each["error"]["code"]) for each in refused] == [("too long", "context_length_exceeded")]
    assert len(answers["two choices"]["choices"]) == 2
    assert all(each["model"] == "small" for each in answers.values())
    if message is not None:
        word = answers["chat"]["choices"][0]["message"]["content"]
        assert answers["responses"]["output"][0]["content"][0]["text"] == word
        assert message["result"]["message"]["content"][0]["text"] == word
        assert all(sum(pair) == pytest.approx(1) for pair in answers["score"]["scores"])
    summary = orjson.loads((state / "summary.json").read_bytes())
    assert len(summary["restarts"]) == 1
    assert summary["platform"] == "server"
    assert list(summary["versions"]) == ["blendrun", kind]
    # It was asked in the order of the plan, and says what it had computed before.
    assert summary["tokens"]["cached"] > 0.2 * summary["tokens"]["prompt"]
    assert "is away" in summary["restarts"][0]["reason"]
    assert (state / "engine.log").read_text().count("again in") > 0

"""`blendrun serve` as a process, and OpenAI's client to it."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from openai import OpenAI
from openai.types import Batch

URL: Literal["/v1/chat/completions"] = "/v1/chat/completions"
ENDED = ("completed", "failed", "cancelled", "expired")
_WAIT_S = 90.0


class Server:
    """One that is up. address: of its API, without /v1."""

    def __init__(self, store: Path, words: tuple[str, ...]) -> None:
        main = "from blendrun.cli import main; main()"
        command = [sys.executable, "-c", main, "serve", "--store", str(store), "--port", "0", *words]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=store.parent)
        assert self.process.stderr is not None
        self.said = self.process.stderr.readline()
        found = re.search(r" at (http://[\d.]+:\d+)", self.said)
        assert found is not None, self.said + self.process.stderr.read()
        self.address = found[1]

    def client(self, key: str) -> OpenAI:
        return OpenAI(base_url=f"{self.address}/v1", api_key=key, max_retries=2)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=_WAIT_S)
        return self.process.returncode


@contextmanager
def serving(store: Path, *words: str) -> Iterator[Server]:
    server = Server(store, words)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.end()


def lines(names: list[str], **fields: Any) -> bytes:
    """A file of chats, one for each custom_id."""
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, **fields}
    return b"".join(
        json.dumps({"custom_id": name, "method": "POST", "url": URL, "body": body}).encode() + b"\n" for name in names
    )


def batch(client: OpenAI, content: bytes, window: Any = "24h", **more: Any) -> Batch:
    """A new one of this content."""
    file = client.files.create(file=("jobs.jsonl", io.BytesIO(content)), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=URL, completion_window=window, **more)


def ended(client: OpenAI, asked: Batch) -> Batch:
    """The same once it has ended."""
    return reached(client, asked, ENDED)


def reached(client: OpenAI, asked: Batch, statuses: tuple[str, ...], completed: int = 0) -> Batch:
    """The same once it has one of these statuses and so many answers."""
    until = time.monotonic() + _WAIT_S
    while True:
        found = client.batches.retrieve(asked.id)
        done = found.request_counts.completed if found.request_counts is not None else 0
        if found.status in statuses and done >= completed:
            return found
        assert time.monotonic() < until, found
        time.sleep(0.05)


def ids_of(client: OpenAI, file: str | None) -> list[str]:
    """custom_ids of the lines of a file; none where there is none."""
    return [] if file is None else [json.loads(line)["custom_id"] for line in client.files.content(file).iter_lines()]

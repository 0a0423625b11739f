"""The installed `blendrun` command as its users start it: a process with files, pipes and signals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COMMAND = str(Path(sys.executable).with_name("blendrun"))
REPLAY = ("--engine", "replay")


def line(custom_id: str, text: str = "Hello", **fields: Any) -> bytes:
    body = {"messages": [{"role": "user", "content": text}]}
    return json.dumps({"custom_id": custom_id, "url": "/v1/chat/completions", "body": body, **fields}).encode()


def write_jobs(path: Path, rows: int, **fields: Any) -> Path:
    path.write_bytes(b"".join(line(f"id {row}", f"question {row}", **fields) + b"\n" for row in range(rows)))
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_bytes().splitlines()]


def ids(path: Path) -> list[str]:
    return [answer["custom_id"] for answer in lines_of(path)]


def environment(**changes: str) -> dict[str, str]:
    """The caller's, without what colours a terminal."""
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "NO_COLOR", "COLUMNS")}
    return kept | changes


def arguments(*words: str | Path) -> list[str]:
    return [COMMAND, *map(str, words)]


def blendrun(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"capture_output": True, "text": True, "timeout": 60, "env": environment()} | options
    return subprocess.run(arguments(*words), **options)


def start(*words: str | Path, **options: Any) -> subprocess.Popen[str]:
    options = {"stderr": subprocess.PIPE, "text": True, "env": environment()} | options
    return subprocess.Popen(arguments(*words), **options)


def await_answers(journal: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until the journal holds `count` answers (or the process has ended)."""
    while process.poll() is None:
        # One line is the header.
        if journal.exists() and journal.read_bytes().count(b"\n") > count:
            return
        time.sleep(0.005)

"""The `blendrun` command as its users start it, with files, pipes and signals.

Most tests call it in this process (`blendrun`): the same arguments, descriptors and exit codes without half a second of
imports. One that is about signals, descriptors, terminals or death starts the installed command (`process=True`,
`start`).
"""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from blendrun.cli import main

COMMAND = str(Path(sys.executable).with_name("blendrun"))
REPLAY = ("--engine", "replay")
# A command that hangs in this process ends it after so long, with the stacks of all threads.
_HANGS_S = 900.0


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


def blendrun(
    *words: str | Path,
    process: bool = False,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str | bytes = "",
    text: bool = True,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """The command, to its end. process: in one of its own, with what else `subprocess.run` takes.

    A command in this process has `input` and two files for its standard descriptors, as `subprocess.run` with pipes.
    """
    env = environment() if env is None else env
    if process:
        given: dict[str, Any] = {"capture_output": True, "text": text, "env": env, "cwd": cwd}
        given |= {"input": input} if input else {"stdin": subprocess.DEVNULL}
        return subprocess.run(arguments(*words), **given | options)
    assert not options, f"for a process only: {', '.join(options)}"
    with tempfile.TemporaryFile() as given_in, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given_in.write(input.encode() if isinstance(input, str) else input)
        given_in.seek(0)
        with _around(cwd, env), _descriptors(given_in, out, err):
            code = _exit_code(words)
        said = [_content(file) for file in (out, err)]
    shown: list[Any] = [content.decode() for content in said] if text else list(said)
    return subprocess.CompletedProcess(arguments(*words), code, *shown)


def _exit_code(words: tuple[str | Path, ...]) -> int:
    """Of `main`, as the interpreter would make it."""
    faulthandler.dump_traceback_later(_HANGS_S, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        main([*map(str, words)])
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except Exception:  # noqa: BLE001  # as the interpreter does
        traceback.print_exc()
        return 1
    finally:
        faulthandler.cancel_dump_traceback_later()
    return 0


@contextmanager
def _around(cwd: str | Path | None, env: Mapping[str, str]) -> Iterator[None]:
    before, folder = dict(os.environ), Path.cwd()
    _set_environment(env)
    try:
        os.chdir(cwd or folder)
        yield
    finally:
        _set_environment(before)
        os.chdir(folder)


def _set_environment(env: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(env):
        del os.environ[name]
    os.environ.update(env)


@contextmanager
def _descriptors(*files: IO[bytes]) -> Iterator[None]:
    """Descriptors 0, 1 and 2, and Python's names for them, are `files`."""
    before = (sys.stdin, sys.stdout, sys.stderr)
    with ExitStack() as later:
        for number, file in enumerate(files):
            kept = os.dup(number)
            later.callback(os.close, kept)
            later.callback(os.dup2, kept, number)
            os.dup2(file.fileno(), number)
        sys.stdin = os.fdopen(0, encoding="utf-8", errors="surrogateescape", closefd=False)
        sys.stdout, sys.stderr = (
            os.fdopen(number, "w", encoding="utf-8", errors=errors, closefd=False, buffering=1 if number == 2 else -1)
            for number, errors in ((1, "surrogateescape"), (2, "backslashreplace"))
        )
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            sys.stdin, sys.stdout, sys.stderr = before


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def start(*words: str | Path, **options: Any) -> subprocess.Popen[str]:
    """The command in a process of its own, which goes on."""
    given: dict[str, Any] = {"stderr": subprocess.PIPE, "text": True, "env": environment()}
    return subprocess.Popen(arguments(*words), **given | options)


def await_answers(journal: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until the journal holds `count` answers (or the process has ended)."""
    while process.poll() is None:
        # One line is the header.
        if journal.exists() and journal.read_bytes().count(b"\n") > count:
            return
        time.sleep(0.005)

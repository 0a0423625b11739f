"""The door for Python: what the commands do, as functions. `import blendrun` has all of it.

import blendrun

blendrun.run("jobs.jsonl", model="llama-3-8b", output="answers.jsonl")
for answer in blendrun.read("answers.jsonl"):
    print(answer["custom_id"], answer["response"]["body"]["choices"][0]["message"]["content"])
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import orjson

from blendrun.backends.options import RunArguments, RunOptions
from blendrun.backends.planning import PlanArguments, PlanOptions, plan_job
from blendrun.backends.session import exit_code, run_job
from blendrun.errors import (
    EXIT_OK,
    EXIT_SOME_LINES_FAILED,
    BlendrunError,
    InputMissingError,
    TooManyErrorsError,
    UsageError,
)
from blendrun.events import Listener, ignore
from blendrun.report.schemas.plan import PlanReport
from blendrun.report.terminal.progress import choose_view
from blendrun.store.folder import StateFolder
from blendrun.store.summary import Summary

Jobs = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
# "rich": a live view on stderr where that is a terminal, lines elsewhere. A function gets every event.
Show = Listener | Literal["rich"] | None


class LinesFailedError(BlendrunError):
    """The run is done and its files are written, but some lines have an error instead of an answer."""

    exit_code = EXIT_SOME_LINES_FAILED

    def __init__(self, message: str, summary: Summary) -> None:
        super().__init__(message)
        self.summary = summary


def run(
    jobs: Jobs,
    *,
    model: str | None = None,
    output: str | os.PathLike[str] | None = None,
    progress: Show = None,
    **options: Unpack[RunArguments],
) -> Summary:
    """Answer every request of `jobs`, as `blendrun run` does: the same call again goes on where the last one stopped.

    jobs: one file of OpenAI Batch lines, or several. model: alias, hub id, folder or GGUF file. output: None for
    `<first job>.answers.jsonl`. options: those of the command, with `_` for `-`; `engine_args` is a dict.
    Call it from the main thread; in a notebook too. An interrupt ends the run as Ctrl-C ends the command.

    Raises what the command would end with, each with its `exit_code`: LinesFailedError (3, has the summary; not with
    errors_ok=True), TooManyErrorsError (4), UsageError (2), InputInvalidError (65), InputMissingError (66),
    EngineUnavailableError (69), OutputUnavailableError (73), DrainedError (75), ManifestMismatchError (78),
    InterruptedRunError (130).
    """
    asked = RunOptions.of({"inputs": _names(jobs), "model": model, "output": output, **options})
    with _main_thread():
        summary = run_job(asked, _view(progress))
    if (code := exit_code(summary, asked)) != EXIT_OK:
        failed = f"{summary.counts.failed:,} of {summary.counts.total:,} lines failed: see {summary.errors}"
        raise TooManyErrorsError(failed) if code == TooManyErrorsError.exit_code else LinesFailedError(failed, summary)
    return summary


def plan(
    jobs: Jobs, *, model: str | None = None, progress: Show = None, **options: Unpack[PlanArguments]
) -> PlanReport:
    """Preview `jobs` as `blendrun plan` does: sharing, orders, predicted time; what the command prints with --json.

    Raises UsageError, InputInvalidError, InputMissingError, OutputUnavailableError.
    """
    asked = PlanOptions.of({"inputs": _names(jobs), "model": model, **options})
    with _view(progress) as listener:
        return plan_job(asked, listener)[0]


@overload
def read(path: str | os.PathLike[str], *, errors: bool = ..., frame: None = ...) -> Iterator[dict[str, Any]]: ...
@overload
def read(path: str | os.PathLike[str], *, errors: bool = ..., frame: Literal["pandas", "polars"]) -> Any: ...


def read(
    path: str | os.PathLike[str], *, errors: bool = False, frame: Literal["pandas", "polars"] | None = None
) -> Iterator[dict[str, Any]] | Any:
    """The answers in an output file of a run, in input order, each a dict as OpenAI's batch output has it.

    errors: the lines that failed as well, from the file beside it, behind the answers. frame: a data frame of pandas or
    polars instead, with a column for each of `custom_id`, `text` (of the first choice), `finish_reason`,
    `prompt_tokens`, `cached_tokens`, `completion_tokens`, `error_code`, `error_message` and `response` (JSON text).

    Raises InputMissingError where there is no such file, UsageError where pandas or polars is not installed.
    """
    output = Path(path)
    files = [output, *([StateFolder(output).errors] if errors else [])]
    if not output.exists():
        raise InputMissingError(f"cannot read {output}: no such file; a run writes it when all is answered")
    lines = (orjson.loads(line) for file in files if file.exists() for line in _lines(file))
    return lines if frame is None else _frame(lines, frame)


def _names(jobs: Jobs) -> tuple[str, ...]:
    return tuple(os.fspath(name) for name in ([jobs] if isinstance(jobs, str | os.PathLike) else jobs))


def _view(progress: Show) -> AbstractContextManager[Listener]:
    if progress is None:
        return nullcontext(ignore)
    return choose_view(sys.stderr, quiet=False) if progress == "rich" else nullcontext(progress)


@contextmanager
def _main_thread() -> Iterator[None]:
    """Here a run may take signals, and have an event loop of its own although a notebook's is running.

    Raises UsageError in another thread: Python gives signals to the main one only, and the kernel ends an engine
    together with the thread that started it.
    """
    if threading.current_thread() is not threading.main_thread():
        raise UsageError("call blendrun.run from the main thread, or as a process of its own")
    outer = asyncio._get_running_loop()
    wakeup = signal.set_wakeup_fd(-1)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)
        signal.set_wakeup_fd(wakeup)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _frame(lines: Iterable[dict[str, Any]], library: str) -> Any:
    try:
        module = __import__(library)
    except ImportError as error:
        raise UsageError(f"frame={library!r} needs {library}: pip install {library}") from error
    rows = [_row(line) for line in lines]
    columns = {name: [row[name] for row in rows] for name in _row({"custom_id": ""})}
    return module.DataFrame(columns)


def _row(line: dict[str, Any]) -> dict[str, Any]:
    """A line as columns. A completion's text is the choice's own, a chat's is in its message."""
    body = (line.get("response") or {}).get("body") or {}
    error, usage = line.get("error") or {}, body.get("usage") or {}
    choice = (body.get("choices") or [{}])[0]
    message = choice.get("message") or {}
    return {
        "custom_id": line["custom_id"],
        "text": choice.get("text") if "text" in choice else message.get("content"),
        "finish_reason": choice.get("finish_reason"),
        "prompt_tokens": usage.get("prompt_tokens"),
        "cached_tokens": (usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "error_code": error.get("code"),
        "error_message": error.get("message"),
        "response": orjson.dumps(body).decode() if body else None,
    }

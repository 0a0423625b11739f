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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import orjson

from blendrun.backends.options import RunArguments, RunOptions
from blendrun.backends.planning import PlanArguments, PlanOptions, plan_job
from blendrun.backends.session import exit_code, run_job
from blendrun.endpoints.apis.base import Facts
from blendrun.endpoints.apis.registry import APIS
from blendrun.endpoints.registry import ENDPOINTS
from blendrun.errors import (
    EXIT_OK,
    EXIT_SOME_LINES_FAILED,
    BlendrunError,
    InputInvalidError,
    InputMissingError,
    TooManyErrorsError,
    UsageError,
)
from blendrun.events import Listener, ignore
from blendrun.jobs.tables.base import Kind
from blendrun.report.schemas.plan import PlanReport
from blendrun.report.terminal.progress import choose_view
from blendrun.store.folder import StateFolder
from blendrun.store.summary import Summary
from blendrun.store.tables.kind import table_kind

Jobs = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
_FRAMES = ("pandas", "polars")
_COLUMNS: dict[str, type] = {
    "custom_id": str,
    "text": str,
    "finish_reason": str,
    "prompt_tokens": int,
    "cached_tokens": int,
    "completion_tokens": int,
    "error_code": str,
    "error_message": str,
    "response": str,
}
_PANDAS = {str: "string", int: "Int64"}
# "rich": a live view on stderr where that is a terminal, lines elsewhere. A function gets every event.
Show = Listener | Literal["rich"] | None


class LinesFailedError(BlendrunError):
    """The run is done and its files are written, but some lines have an error instead of an answer; or, with
    fail_on_length=True, an answer that was cut short at its token limit."""

    exit_code = EXIT_SOME_LINES_FAILED

    def __init__(self, message: str, summary: Summary) -> None:
        # Both, so that it can be pickled; a message alone is what it prints.
        super().__init__(message, summary)
        self.summary = summary

    def __str__(self) -> str:
        return str(self.args[0])


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
    asked = RunOptions.of(_asked(jobs, {"model": model, "output": output}, options))
    with _main_thread():
        summary = run_job(asked, _view(progress))
    if (code := exit_code(summary, asked)) != EXIT_OK:
        counts = summary.counts
        failed = f"{counts.failed:,} of {counts.total:,} lines failed: see {summary.errors}"
        if not counts.failed or asked.errors_ok:
            failed = f"{summary.cut_short:,} of {counts.total:,} answers were cut short: see {summary.cut_short_list}"
        raise TooManyErrorsError(failed) if code == TooManyErrorsError.exit_code else LinesFailedError(failed, summary)
    return summary


def plan(
    jobs: Jobs, *, model: str | None = None, progress: Show = None, **options: Unpack[PlanArguments]
) -> PlanReport:
    """Preview `jobs` as `blendrun plan` does: sharing, orders, predicted time; what the command prints with --json.

    Raises UsageError, InputInvalidError, InputMissingError, OutputUnavailableError; AllKeptError (exit code 0) where
    `cache` has every answer.
    """
    asked = PlanOptions.of(_asked(jobs, {"model": model}, options))
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

    Raises InputMissingError where there is no such file, InputInvalidError for a line that no run has written (when it
    comes to it), UsageError for an unknown `frame`, or where pandas or polars is not installed.
    """
    if frame not in (None, *_FRAMES):
        raise UsageError(f"frame={frame!r}: known are {', '.join(_FRAMES)}")
    output = Path(path)
    files = [output, *([StateFolder(output).errors] if errors else [])]
    if (kind := table_kind(output)) is not None:
        raise UsageError(
            f"{output} is a {kind} file, and this reads lines: read it with pandas, polars or datasets, for example "
            f"polars.{'read_parquet' if kind is Kind.PARQUET else 'read_csv'}({str(output)!r})"
        )
    if not output.is_file():
        raise InputMissingError(f"cannot read {output}: no such file; a run writes it when all is answered")
    lines = (line for file in files if file.exists() for line in _lines(file))
    return lines if frame is None else _frame(lines, frame)


def _asked(jobs: Jobs, named: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was asked for, by the names of the options. Raises UsageError for a name given twice."""
    if "inputs" in options:
        raise UsageError("inputs: give the jobs as the first argument")
    return {**options, **named, "inputs": _names(jobs)}


def _names(jobs: Jobs) -> tuple[str, ...]:
    """Raises UsageError for what is no file name."""
    names = [jobs] if isinstance(jobs, str | bytes | os.PathLike) else jobs
    try:
        return tuple(os.fsdecode(name) for name in names)
    except TypeError as error:
        raise UsageError(f"jobs: give the name of a file or several, not {jobs!r:.60}") from error


def _view(progress: Show) -> AbstractContextManager[Listener]:
    """Raises UsageError for what cannot listen."""
    if progress is None or (progress == "rich" and (sys.stderr is None or sys.stderr.closed)):
        return nullcontext(ignore)
    if progress == "rich":
        return choose_view(sys.stderr, quiet=False)
    if not callable(progress):
        raise UsageError(f'progress={progress!r}: give "rich", or a function that takes an event')
    return nullcontext(progress)


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


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Raises InputInvalidError for a line that no run has written."""
    hint = "is it the output of a run?"
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            try:
                line = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                raise InputInvalidError(f"{path}, line {number}: no JSON ({error}); {hint}") from error
            if not isinstance(line, dict) or "custom_id" not in line:
                raise InputInvalidError(f"{path}, line {number}: no answer with a custom_id; {hint}")
            yield line


def _frame(lines: Iterable[dict[str, Any]], library: str) -> Any:
    """A frame with the same columns of the same types, whatever the lines hold."""
    try:
        module = import_module(library)
    except ImportError as error:
        raise UsageError(f"frame={library!r} needs {library}: pip install {library}") from error
    rows = [_row(line) for line in lines]
    columns = {name: [row[name] for row in rows] for name in _COLUMNS}
    if library == "polars":
        types = {name: module.Int64 if kind is int else module.String for name, kind in _COLUMNS.items()}
        return module.DataFrame(columns, schema=types)
    return module.DataFrame(columns).astype({name: _PANDAS[kind] for name, kind in _COLUMNS.items()})


def _row(line: dict[str, Any]) -> dict[str, Any]:
    """A line as columns."""
    body = (line.get("response") or {}).get("body") or (line.get("result") or {}).get("message") or {}
    error = line.get("error") or {}
    if not isinstance(error, dict):
        error = {"message": error}
    facts = next((found for api in APIS.values() if (found := api.facts(body)) is not None), None) or _facts(body)
    cells = {
        "custom_id": line["custom_id"],
        "text": facts.text,
        "finish_reason": facts.finish,
        "prompt_tokens": facts.prompt,
        "cached_tokens": facts.cached,
        "completion_tokens": facts.output,
        "error_code": error.get("code"),
        "error_message": error.get("message"),
        "response": body or None,
    }
    return {name: _cell(value, _COLUMNS[name]) for name, value in cells.items()}


def _facts(body: dict[str, Any]) -> Facts:
    """Of a body of any other endpoint. A completion's text is the choice's own, a chat's is in its message."""
    if "meta_info" in body or "outputs" in body:
        generate = ENDPOINTS["/generate"]
        told, reason = generate.usage(body), generate.finish_reasons(body)[0]
        return Facts(generate.answers(body)[0].get("text"), reason or None, told.prompt, told.cached, told.output)
    usage, choice = body.get("usage") or {}, (body.get("choices") or [{}])[0]
    return Facts(
        choice.get("text") if "text" in choice else (choice.get("message") or {}).get("content"),
        choice.get("finish_reason"),
        usage.get("prompt_tokens"),
        (usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
        usage.get("completion_tokens"),
    )


def _cell(value: Any, kind: type) -> Any:
    """What is no text in a column of text stands there as JSON."""
    return value if value is None or isinstance(value, kind) else orjson.dumps(value).decode()

"""Answers that runs wrote as lines, to be written as a table: which files are read, and what is said of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from blendrun.endpoints.json_size import too_many_values
from blendrun.errors import BlendrunError, InputInvalidError, InputMissingError, UsageError
from blendrun.jobs.kinds import is_answer_line
from blendrun.jobs.spool import HEAD_BYTES, packing
from blendrun.jobs.tables.columns import Columns
from blendrun.jobs.tables.kind import find_table
from blendrun.store.folder import StateFolder
from blendrun.store.journal import LONGEST_RECORD
from blendrun.store.tables.write import Lines

# A table that has these was made of answers.
_COLUMNS = {"prompt_tokens", "error_code", "error"}


def answer_lines(inputs: Sequence[str], limit: int | None) -> Lines:
    """The lines of runs' outputs, each with its errors file behind it. limit: lines of each.

    Raises UsageError for a file that would be read twice, InputInvalidError, InputMissingError.
    """
    found = [_files(Path(name)) for name in inputs]
    _refuse_twice(found)

    def lines() -> Iterator[bytes]:
        for files in found:
            yield from islice(_lines(files), limit)

    return lines


def refuse_answers(path: str, name: str | None = None) -> None:
    """Refuse to take answers for rows. name: for messages, where it is another. Raises InputInvalidError."""
    if _holds_answers(Path(path)):
        raise InputInvalidError(f"{name or path} holds answers; give -o NAME.parquet (or .csv, .tsv) for a table")


def _files(output: Path) -> list[Path]:
    if not output.is_file():
        raise InputMissingError(f"cannot read {output}: no such file; check the path")
    errors = StateFolder(output).errors
    beside = [errors] if errors.is_file() else []
    # Where all lines failed there is no answer.
    if not _holds_answers(output) and not (beside and not output.stat().st_size):
        raise InputInvalidError(f"{output} {_why_none(output)}")
    return [output, *beside]


def _holds_answers(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _is_answer(file.readline(LONGEST_RECORD))
    except (OSError, ValueError):
        return False


def _is_answer(line: bytes) -> bool:
    """Whether a run may have written it: what no run reads of a server is not read here either."""
    return line.lstrip()[:1] == b"{" and not too_many_values(line, LONGEST_RECORD) and is_answer_line(line)


def _why_none(path: Path) -> str:
    with path.open("rb") as file:
        if packing(file.read(HEAD_BYTES)) is not None:
            return "is packed; unpack it first"
    try:
        table = find_table(path, str(path), Columns())
    except BlendrunError:
        table = None
    if table is not None and _COLUMNS.issubset(table.names):
        return "is a table of answers already"
    return "holds no answers: rows become lines, so give -o a name with .jsonl, or answer them: run"


def _refuse_twice(found: Sequence[Sequence[Path]]) -> None:
    seen: dict[tuple[int, int], Path] = {}
    for output, *beside in found:
        for path in (output, *beside):
            status = path.stat()
            if (first := seen.get((status.st_dev, status.st_ino))) is not None:
                raise UsageError(f"{path} would be read twice (with {first}); name it once")
            seen[status.st_dev, status.st_ino] = output


def _lines(files: Sequence[Path]) -> Iterator[bytes]:
    for path in files:
        with path.open("rb") as file:
            for number, line in enumerate(iter(partial(file.readline, LONGEST_RECORD), b""), 1):
                if not _is_answer(line):
                    raise InputInvalidError(f"{path}, line {number}, is no answer of a run")
                yield line

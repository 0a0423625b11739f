"""What an output's name asks for: lines, or a table of some kind."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from blendrun.errors import UsageError
from blendrun.installed import install_command
from blendrun.jobs.tables.base import Kind

_SUFFIXES = {".parquet": Kind.PARQUET, ".csv": Kind.CSV, ".tsv": Kind.TSV}
_PACKED = (".gz", ".zst", ".zstd", ".bz2", ".xz", ".zip")
_OTHERS = (".xlsx", ".xls", ".ods", ".feather", ".arrow", ".orc", ".avro", ".h5", ".db", ".sqlite", ".duckdb")
_LINES = (".jsonl", ".ndjson")


def table_kind(output: Path) -> Kind | None:
    """The kind of table that an output is to be; None for lines."""
    return _SUFFIXES.get(output.suffix.lower())


def check_lines(path: Path, option: str, then: str = "") -> None:
    """Refuse a name that promises what lines are not. then: what to do for a table. Raises UsageError."""
    _refuse_unwritten(path, option)
    if (kind := table_kind(path)) is not None:
        lines = path.with_suffix(".jsonl")
        raise UsageError(f"{option} {path}: lines are written there, no {kind}; give {lines}{then}")


def check_alike(output: Path, name: str, option: str) -> None:
    """Refuse a name to send an output to that promises another format than the output's. Raises UsageError."""
    promised, written = (_format(Path(each).suffix.lower()) for each in (name, output))
    if promised is not None and promised != (written or "lines"):
        what = "lines" if written in (None, "lines") else f"a {written} file"
        raise UsageError(f"{option} ends in {name}, and -o {output} is {what}; give both the same suffix")


def _format(suffix: str) -> str | None:
    """What a suffix promises; None for one that promises nothing."""
    if suffix in _LINES:
        return "lines"
    return _SUFFIXES.get(suffix) or (suffix if suffix in (*_PACKED, *_OTHERS) else None)


def _refuse_unwritten(path: Path, option: str) -> None:
    """Raises UsageError for a suffix of what is never written."""
    suffix = path.suffix.lower()
    if suffix in _PACKED:
        raise UsageError(f"{option} {path}: what is written is not packed; give {path.with_suffix('')}")
    if suffix in _OTHERS:
        known = ", ".join((*_LINES[:1], *_SUFFIXES))
        raise UsageError(f"{option} {path}: no {suffix} is written; known are {known}")


def check_output(output: Path, *, sharded: bool) -> None:
    """Refuse now what could not be written at the end. Raises UsageError."""
    _refuse_unwritten(output, "-o")
    kind = table_kind(output)
    if kind is None:
        return
    if sharded:
        lines = output.with_suffix(".jsonl")
        then = f"blendrun merge {lines}, and blendrun convert {lines} -o {output}"
        raise UsageError(f"-o {output}: shards write lines; give -o {lines}, and then: {then}")
    if kind is Kind.PARQUET and find_spec("pyarrow") is None:
        raise UsageError(f"-o {output} needs pyarrow: {install_command('tables')}")

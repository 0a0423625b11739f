"""What an output's name asks for: lines, or a table of some kind."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from blendrun.errors import UsageError
from blendrun.jobs.tables.base import Kind

_SUFFIXES = {".parquet": Kind.PARQUET, ".csv": Kind.CSV, ".tsv": Kind.TSV}
_PACKED = (".gz", ".zst", ".zstd", ".bz2", ".xz")


def table_kind(output: Path) -> Kind | None:
    """The kind of table that an output is to be; None for lines."""
    return _SUFFIXES.get(output.suffix.lower())


def check_output(output: Path, *, sharded: bool) -> None:
    """Refuse now what could not be written at the end. Raises UsageError."""
    packed = output.suffix.lower() in _PACKED and Path(output.stem).suffix.lower() in _SUFFIXES
    if packed:
        raise UsageError(f"-o {output}: tables are not packed; give {output.with_suffix('')}")
    kind = table_kind(output)
    if kind is None:
        return
    if sharded:
        lines = output.with_suffix(".jsonl")
        raise UsageError(f"-o {output}: shards write lines; give -o {lines}, merge, and then: blendrun convert {lines}")
    if kind is Kind.PARQUET and find_spec("pyarrow") is None:
        raise UsageError(f"-o {output} needs pyarrow: pip install 'blendrun[tables]'")

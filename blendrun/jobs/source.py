"""Where a job's bytes come from: files, compressed files, pipes and stdin, all made readable by offset."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from blendrun.errors import BlendrunError, InputMissingError, OutputUnavailableError, UsageError
from blendrun.events import Listener, ignore
from blendrun.jobs import kinds
from blendrun.jobs.fetched import fetched
from blendrun.jobs.spool import HEAD_BYTES, LONGEST_WINDOW, packing, refuse_foreign, spool, spool_file
from blendrun.jobs.tables.base import Table
from blendrun.jobs.tables.columns import Columns
from blendrun.jobs.tables.made import made_lines
from blendrun.paths import how_to_read, scheme
from blendrun.remote.address import is_address, parse_address, shown

STDIN = "-"
# A Job names a row's source in 16 bits.
MAX_SOURCES = 65_535


@dataclass(frozen=True, slots=True)
class Source:
    """One input, readable at any offset.

    name: as the user gave it, for messages; "<stdin>" for `-`; an address without what is secret in it.
    path: the file to read; the input itself, or its copy, unpacked, or the lines that were made of its rows.
    size: bytes of that file.
    copied: whether it is such a copy, in the state folder.
    table: whose rows the lines are, if they are rows'. made: what they are, for `jobs.tables.note`.
    """

    name: str
    path: Path
    size: int
    copied: bool = False
    table: Table | None = None
    made: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read of it, from the first line to the writing of the answers."""
        return (self.path,) if self.table is None else (self.path, self.table.path)


def open_sources(
    paths: Sequence[str | Path],
    spool_folder: Path,
    longest_window: int = LONGEST_WINDOW,
    columns: Columns | None = None,
    *,
    listener: Listener = ignore,
) -> list[Source]:
    """Make every input readable by offset, in the order given.

    Plain files stay where they are. Gzip and zstd (by content, not by name), pipes and `-` are unpacked into
    `spool_folder` (made when first needed), each as a file named by its content; so are the lines that are made of
    tables' rows. What lies at an address is fetched there first.

    longest_window: of zstd, as a power of two. columns: what requests are made of, where rows are no requests.
    listener: told how far a fetch is.

    Raises UsageError (no input, or one given twice; options for rows, and no rows), InputMissingError (not there, not
    readable, a folder), InputInvalidError (truncated or corrupt, no column that could be the prompt),
    OutputUnavailableError (the spool folder cannot be written).
    """
    if not paths:
        raise UsageError("no input given; name a file of requests, or - for stdin")
    if len(paths) > MAX_SOURCES:
        raise UsageError(f"{len(paths):,} input files; at most {MAX_SOURCES:,} can be one job, so join some")
    names = [_display(path) for path in paths]
    _check_all(paths, names)
    opened = []
    for path, name in zip(paths, names, strict=True):
        here = fetched(str(path), spool_folder, listener) if is_address(path) else path
        source = _open(here, name, spool_folder, longest_window)
        opened.append(source if here is path else replace(source, copied=True))
    return [_as_lines(source, place, spool_folder, columns or Columns()) for place, source in enumerate(opened)]


def files_of(sources: Sequence[Source]) -> list[Path]:
    """What is read of them."""
    return [file for source in sources for file in source.files]


def what_it_means(source: Source, error: InputMissingError) -> BlendrunError:
    """What it means that a source cannot be read: its copy is the state folder's."""
    if not source.copied:
        return error
    return OutputUnavailableError(f"{error} (its unpacked copy {source.path}); the same command unpacks it again")


def _as_lines(source: Source, place: int, spool_folder: Path, columns: Columns) -> Source:
    """The source, or, where it holds rows, the lines that are made of them."""
    try:
        made = made_lines(source.path, source.name, place, spool_folder, columns)
    except InputMissingError as error:
        raise what_it_means(source, error) from error
    if made is None:
        return source
    table, path, size, text = made
    return Source(source.name, path, size, True, table, text)


def _display(path: str | Path) -> str:
    # A file name need not be UTF-8, but every message and output file is.
    return "<stdin>" if str(path) == STDIN else shown(os.fsdecode(path))


def _check_all(paths: Sequence[str | Path], names: Sequence[str]) -> None:
    """Refuse what can be refused before the first large file is unpacked."""
    seen: dict[tuple[int, int] | str, str] = {}
    for path, name in zip(paths, names, strict=True):
        if str(path) == STDIN:
            identity: tuple[int, int] | str = STDIN
        elif is_address(path):
            identity = parse_address(str(path)).key
        else:
            try:
                status = Path(path).stat()
            except OSError as error:
                if scheme(str(path)) is not None:
                    raise InputMissingError(how_to_read(name)) from error
                raise InputMissingError(f"cannot read {name}: {error.strerror}; check the path") from error
            except ValueError as error:
                raise InputMissingError(f"{name!r} cannot be a path: {error}") from error
            if stat.S_ISDIR(status.st_mode):
                raise InputMissingError(f"{name} is a folder; name the files in it")
            identity = (status.st_dev, status.st_ino)
        if identity in seen:
            first = seen[identity]
            which = f"{name} is given twice" if first == name else f"{first} and {name} are the same file"
            raise UsageError(f"{which}; every custom_id may occur once")
        seen[identity] = name


def _open(path: str | Path, name: str, spool_folder: Path, longest_window: int) -> Source:
    if str(path) == STDIN:
        if sys.stdin is None:
            raise InputMissingError("stdin is closed; name a file instead of -")
        return Source(name, *spool(sys.stdin.buffer, name, spool_folder, longest_window), True)
    try:
        with Path(path).open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return Source(name, *spool(file, name, spool_folder, longest_window), True)
            head = os.pread(file.fileno(), kinds.HEAD_BYTES, 0)
            if packing(head[:HEAD_BYTES]) is not None:
                return Source(name, *spool_file(file, Path(path), name, spool_folder, longest_window), True)
    except OSError as error:
        raise InputMissingError(f"cannot read {name}: {error.strerror}; check the path") from error
    refuse_foreign(head, name)
    return Source(name, Path(path).absolute(), status.st_size)

"""Tables as lines, what a run makes of their rows; and answers as a table, of runs that wrote lines."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from blendrun.backends.hub_inputs import with_hub_files
from blendrun.backends.options import STDOUT, AtLeast1, check_endpoint, convert_options
from blendrun.backends.row_options import RowOptions
from blendrun.errors import InputInvalidError, InputMissingError
from blendrun.events import Listener, Note
from blendrun.jobs.kinds import is_answer_line
from blendrun.jobs.source import open_sources
from blendrun.jobs.tables.note import notes
from blendrun.paths import refuse_address
from blendrun.scratch import scratch_folder
from blendrun.store.folder import StateFolder
from blendrun.store.guard import Target
from blendrun.store.tables.kind import table_kind
from blendrun.store.tables.write import Lines, write_lines


class ConversionOptions(RowOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a conversion is asked for. output: None or "-" for stdout."""

    inputs: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    output: Path | None = None
    endpoint: str | None = None
    limit: AtLeast1 | None = None
    overwrite: bool = False

    @classmethod
    def of(cls, given: dict[str, object]) -> ConversionOptions:
        """From names and plain values. Raises UsageError."""
        found = convert_options(given, cls, "a conversion")
        check_endpoint(found.endpoint)
        if found.output is not None:
            refuse_address(str(found.output), "--output")
        return found


def convert(options: ConversionOptions, stdout: BinaryIO, listener: Listener) -> None:
    """Write the lines. Raises UsageError, InputInvalidError, InputMissingError, OutputUnavailableError, OSError."""
    target = None
    if options.output not in (None, Path(STDOUT)):
        own = tuple(Path(name) for name in options.inputs)
        target = Target(Path(str(options.output)), "--output", own=own, overwrite=options.overwrite)
        target.check()
    kind = None if target is None else table_kind(target.path)
    if target is not None and kind is not None:
        with target.opened() as file:
            write_lines(file, kind, _answers(options))
        return
    columns = options.columns(options.endpoint, options.limit)
    with scratch_folder("convert") as folder:
        sources = open_sources(with_hub_files(options.inputs, listener), folder, columns=columns)
        for source in sources:
            if source.table is None:
                raise InputInvalidError(
                    f"{source.name} holds requests already, or nothing that is known as rows: .parquet, .csv, .tsv, "
                    ".txt, JSON with a prompt each"
                )
        for note in notes((source.name, source.made) for source in sources):
            listener(Note(note))
        if target is None:
            _copy([source.path for source in sources], stdout)
            return
        with target.opened() as file:
            _copy([source.path for source in sources], file)


def _answers(options: ConversionOptions) -> Lines:
    """The lines of runs' outputs, each with its errors file behind it. Raises InputInvalidError, InputMissingError."""
    paths: list[Path] = []
    for name in options.inputs:
        output = Path(name)
        if not output.is_file():
            raise InputMissingError(f"cannot read {name}: no such file; check the path")
        with output.open("rb") as file:
            if not is_answer_line(file.readline()):
                raise InputInvalidError(
                    f"{name} holds no answers: rows become lines, so give -o a name with .jsonl, or answer them: run"
                )
        errors = StateFolder(output).errors
        paths += [output, *([errors] if errors.exists() else [])]

    def lines() -> Iterator[bytes]:
        for path in paths:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if not is_answer_line(line):
                        raise InputInvalidError(f"{path}, line {number}, is no answer of a run")
                    yield line

    return lines


def _copy(paths: list[Path], to: BinaryIO) -> None:
    for path in paths:
        with path.open("rb") as file:
            shutil.copyfileobj(file, to)
    to.flush()

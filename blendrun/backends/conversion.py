"""Tables as lines, what a run makes of their rows; and answers as a table, of runs that wrote lines."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from blendrun.backends.answer_files import answer_lines, refuse_answers
from blendrun.backends.hub_inputs import with_hub_files
from blendrun.backends.options import STDOUT, AtLeast1, check_endpoint, convert_options
from blendrun.backends.row_options import RowOptions
from blendrun.errors import InputInvalidError, UsageError
from blendrun.events import Listener, Note
from blendrun.jobs.source import open_sources
from blendrun.jobs.tables.note import notes
from blendrun.paths import refuse_address
from blendrun.scratch import scratch_folder
from blendrun.store.guard import Target
from blendrun.store.tables.kind import check_lines, table_kind
from blendrun.store.tables.write import write_lines


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
        _refuse_row_options(options)
        lines = answer_lines(options.inputs, options.limit)
        with target.opened() as file:
            write_lines(file, kind, lines)
        return
    if target is not None:
        check_lines(target.path, "-o")
    for name in options.inputs:
        refuse_answers(name)
    columns = options.columns(options.endpoint, options.limit)
    with scratch_folder("convert") as folder:
        sources = open_sources(with_hub_files(options.inputs, listener), folder, columns=columns)
        for source in sources:
            if source.table is None:
                refuse_answers(str(source.path), source.name)
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


def _refuse_row_options(options: ConversionOptions) -> None:
    """Answers are no rows that become requests. Raises UsageError."""
    columns = options.columns(None, None)
    given = (*columns.given, *(("--endpoint",) if options.endpoint is not None else ()))
    if given:
        raise UsageError(
            f"{given[0]} says how rows become requests, and -o {options.output} takes answers that a run wrote; leave "
            "it out, or give -o a name with .jsonl"
        )


def _copy(paths: list[Path], to: BinaryIO) -> None:
    for path in paths:
        with path.open("rb") as file:
            shutil.copyfileobj(file, to)
    to.flush()

"""`blendrun convert`: tables as request lines, answers as a table."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from blendrun.cli.row_options import (
    IdColumn,
    ImageColumn,
    MaxTokens,
    MessagesColumn,
    PromptColumn,
    PromptTemplate,
    SchemaFile,
    SystemPrompt,
    Temperature,
)


def convert(
    context: typer.Context,
    jobs: Annotated[
        list[str],
        typer.Argument(
            help="Tables (.parquet, .csv, .tsv, .txt, JSON with a prompt each), .gz, .zst.", metavar="TABLES"
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. Default: lines to stdout.", metavar="FILE")
    ] = None,
    prompt_column: PromptColumn = None,
    messages_column: MessagesColumn = None,
    image_column: ImageColumn = None,
    id_column: IdColumn = None,
    system_prompt: SystemPrompt = None,
    prompt_template: PromptTemplate = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    schema: SchemaFile = None,
    endpoint: Annotated[
        str | None, typer.Option(help="URL of the lines. Default: /v1/chat/completions.", metavar="URL")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take only the first N rows (or answers) of each file.", metavar="N")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there already.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")] = False,
) -> None:
    """Turn tables into request lines, or answers into a table.

    The lines are those that `run` would make of TABLES, and the answers to them are the same.
    With a table for an output (-o answers.parquet, .csv, .tsv) TABLES are answers that a run wrote as lines.
    """
    from blendrun.backends.conversion import ConversionOptions
    from blendrun.backends.conversion import convert as write_lines
    from blendrun.errors import EXIT_OK, OutputUnavailableError
    from blendrun.report.terminal.progress import choose_view

    given = dict(context.params)
    named = {name: given[name] for name in ConversionOptions.__struct_fields__ if name in given}
    options = ConversionOptions.of(named | {"inputs": given["jobs"]})
    try:
        with choose_view(sys.stderr, quiet=quiet) as listener:
            write_lines(options, sys.stdout.buffer, listener)
    except OSError as error:
        # What is left in the buffer would fail again, loudly, as Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(EXIT_OK) from error
        raise OutputUnavailableError(f"cannot write to stdout: {error.strerror}") from error

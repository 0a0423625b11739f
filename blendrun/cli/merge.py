"""`blendrun merge`: what the shards of a job wrote, as one output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def merge(
    output: Annotated[
        Path, typer.Argument(help="The output that the shards divide: what -o said, or its default.", metavar="OUTPUT")
    ],
    errors_ok: Annotated[bool, typer.Option("--errors-ok", help="Exit 0 although some lines failed.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that no merge made.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")] = False,
) -> None:
    """Put the answers of all shards together, in the order of the input.

    Shards are the files that `run --shard i/n -o OUTPUT` wrote, with their state folders; they stay as they are.
    Exit codes: 0 all answered, 3 some lines failed, 75 shards are not finished yet: run them, then merge again.
    """
    from blendrun.errors import EXIT_SOME_LINES_FAILED, unusable
    from blendrun.store.folder import StateFolder, path_text
    from blendrun.store.shards import merge_shards
    from blendrun.text import printable

    try:
        merged = merge_shards(output, overwrite=overwrite)
    except OSError as error:
        raise unusable(output, error) from error
    if not quiet:
        failed = ""
        if merged.failed:
            failed = f", {merged.failed:,} errors to {path_text(StateFolder(output).errors)}"
        sys.stderr.write(
            f"blendrun: {merged.shards} shards, {merged.answered:,} answers to "
            f"{printable(path_text(output) + failed)}\n"
        )
    if merged.failed and not errors_ok:
        raise typer.Exit(EXIT_SOME_LINES_FAILED)

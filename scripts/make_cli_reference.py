"""Write the CLI reference from the code: python scripts/make_cli_reference.py docs/cli.md (--check: only compare)"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from blendrun.cli.app import app

_HEAD = """# Command line

Made from the code by `make docs`; a test compares. Do not edit.
"""


def commands(group: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, those of groups after what stands alone."""
    group = group or typer.main.get_command(app)
    if not words:
        yield ()
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name)


def reference() -> str:
    parts = [_HEAD]
    command = str(Path(sys.executable).with_name("blendrun"))
    # Plain text of one width on every machine.
    plain = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "_TYPER_FORCE_DISABLE_TERMINAL": "1"}
    for words in commands():
        shown = subprocess.run([command, *words, "--help"], capture_output=True, text=True, env=plain, check=True)
        text = "\n".join(line.rstrip() for line in shown.stdout.strip("\n").splitlines())
        parts.append(f"## `{' '.join(('blendrun', *words))}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def main() -> None:
    path = Path(sys.argv[1])
    if "--check" in sys.argv:
        if path.read_text(encoding="utf-8") != reference():
            sys.exit(f"{path} is not what the code says: run make docs")
        return
    path.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()

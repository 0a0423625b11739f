"""Write the CLI reference from the code: python scripts/make_cli_reference.py docs/cli.md (--check: only compare)"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COMMANDS = (
    *((), ("run",), ("status",), ("report",), ("plan",), ("doctor",), ("calibrate",), ("synth",)),
    *(("bench", "simulate"), ("bench", "live")),
)
_HEAD = """# Command line

Made from the code by `make docs`; a test compares. Do not edit.
"""


def reference() -> str:
    parts = [_HEAD]
    command = str(Path(sys.executable).with_name("blendrun"))
    # Plain text of one width on every machine.
    plain = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "_TYPER_FORCE_DISABLE_TERMINAL": "1"}
    for words in COMMANDS:
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

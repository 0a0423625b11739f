"""The installed command on a terminal of a wanted size."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path

from tests.command import arguments, environment


def on_terminal(*words: str | Path, width: int = 100, height: int = 24, **variables: str) -> tuple[int, str]:
    """Exit code and all that reached the terminal; stdout and stderr both are one."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    process = subprocess.Popen(
        arguments(*words),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(**{"TERM": "xterm-256color", **variables}),
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass  # The terminal's other end is closed: the process has ended.
    finally:
        os.close(ours)
    return process.wait(), shown.decode()

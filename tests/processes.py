"""Processes that tests start and end, as the kernel sees them, and waiting for what they do."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def alive_in_group(group: int) -> list[str]:
    """Command names of running processes of a process group; zombies do not run."""
    names = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        state, _, process_group = rest.split()[:3]
        if int(process_group) == group and state != "Z":
            names.append(name)
    return names


def children(parent: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def scheduler_of(engine: int) -> int:
    return next(child for child in children(engine) if "schedul" in Path(f"/proc/{child}/comm").read_text())


def wait_for(what: Callable[[], bool], *needed: subprocess.Popen[Any]) -> None:
    """Until `what` holds, however long that takes while all of `needed` run; the test's own timeout ends a hang.

    A machine that is busy with other work takes many times as long as a quiet one: no number of seconds is right.
    """
    while not what():
        for process in needed:
            assert process.poll() is None, f"{process.args!r} ended with {process.returncode}: {_said(process)}"
        time.sleep(0.02)


def wait_for_end(*groups: int) -> None:
    """Until no process of these groups runs."""
    for group in groups:
        wait_for(lambda group=group: not alive_in_group(group))  # type: ignore[misc]


def _said(process: subprocess.Popen[Any]) -> str:
    return "" if process.stderr is None else str(process.communicate()[1])

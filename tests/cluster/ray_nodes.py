"""Processes of the cluster that tests share, as this machine sees them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

# For the processes that join the cluster: 127.0.0.1 is what it says.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Whose dimensions an order is made for; an engine's may be smaller.
MODEL = "smollm2-135m"


@dataclass(frozen=True)
class Nodes:
    """The cluster's process. address: HOST:PORT. session: folder that all of its processes write their logs to."""

    process: subprocess.Popen[str]
    address: str
    session: str

    def tell(self, command: str) -> None:
        """`add` or `remove` a node; back when it is done."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == command


def hosts(nodes: Nodes) -> list[int]:
    """Processes of this cluster that hold an engine's actor."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.joinpath("cmdline").read_bytes().startswith(b"ray::Host") and any(
                str(each.readlink()).startswith(nodes.session) for each in path.joinpath("fd").iterdir()
            ):
                found.append(int(path.name))
        except OSError:
            # It has just ended.
            continue
    return found


def engines(nodes: Nodes) -> list[int]:
    """Engine processes that hosts have started, each from a thread of its own."""
    found = []
    for host in hosts(nodes):
        for path in Path(f"/proc/{host}/task").glob("*/children"):
            found += [int(child) for child in path.read_text().split()]
    return found

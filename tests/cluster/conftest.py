"""One cluster for all tests here: a head and another node, one CPU each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# For the processes that join the cluster: 127.0.0.1 is what it says.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


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


@pytest.fixture(scope="session")
def nodes() -> Iterator[Nodes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.nodes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Ray says much at its end.
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | LOOPBACK,
    )
    assert process.stdin is not None and process.stdout is not None
    address, _, session = process.stdout.readline().strip().partition(" ")
    assert address.startswith("127.0.0.1:"), "the cluster did not start"
    yield Nodes(process, address, session)
    process.stdin.close()
    process.wait(60)


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

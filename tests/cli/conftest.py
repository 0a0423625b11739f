"""What tests of commands share."""

from __future__ import annotations

import pytest

# Kernels are known once their modules are imported.
import blendrun.planner.plan
import blendrun.tree.hits  # noqa: F401
from blendrun.tree.compiled import load_kernels


@pytest.fixture(scope="session", autouse=True)
def loops() -> None:
    """The planner's loops are loaded, so that small jobs are not planned by the interpreter, which takes ten times as
    long. `tests/simulate/test_interpreted.py` and `test_plan.py` have it do so.
    """
    load_kernels()

"""What tests of commands share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def with_loops(loops: None) -> None:
    """Small jobs are planned by compiled loops; `tests/simulate/test_interpreted.py` and `test_plan.py` do without."""

"""Loops made ready beside other work are there when they are wanted, and seconds of compiling are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blendrun.tree import ahead
from blendrun.tree import compiled as machinery
from tests.tree.test_compiled import SOURCE, fresh


@pytest.mark.parametrize("begun", [True, False])
def test_compiling_is_told_once_a_machine(begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machinery, "_KERNELS", [])
    told: list[str] = []
    path = tmp_path / "kernels.py"
    path.write_text(SOURCE.format(step=1))
    for _ in range(2):
        monkeypatch.setattr(ahead, "_BEGUN", [])
        module = fresh(path)
        if begun:
            ahead.begin_loading()
        ahead.finish_loading(lambda: told.append("compile"))
        assert len(told) <= 1
        assert module.total(np.array([1, 2, 3], np.int32), 3) == 12
    # Whoever waits for a thread that is done already has nothing to tell.
    assert begun or told == ["compile"]

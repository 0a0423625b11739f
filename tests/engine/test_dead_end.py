"""Masks of grammars: a row without a way on is opened, all others stay as they are."""

from __future__ import annotations

import pytest

from blendrun.engine.scheduler.dead_end import open_dead_end


def test_only_the_empty_row_that_was_filled_is_opened() -> None:
    torch = pytest.importorskip("torch")
    mask = torch.tensor([[0, 0], [0, 4], [0, 0]], dtype=torch.int32)
    open_dead_end(None, object(), mask, 1)
    assert mask.tolist() == [[0, 0], [0, 4], [0, 0]]
    open_dead_end(None, object(), mask, 2)
    assert mask.tolist() == [[0, 0], [0, 4], [-1, -1]]

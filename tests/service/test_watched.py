"""When a run is told to end, and told again: at once where a batch is to end, and not while it drains for another."""

from __future__ import annotations

import pytest

from blendrun.service.watched import _Said

# Seconds: hurry, whether the run is to be told. It has 300 for what is in flight.
DRAINING = [(0, False, True), (20, False, False), (299, False, False), (309, False, False), (311, False, True)]
ENDING = [(0, True, True), (19, True, False), (21, True, True), (30, True, False), (42, True, True)]
BOTH = [(0, False, True), (100, False, False), (101, True, False), (120, True, False), (122, True, True)]


@pytest.mark.parametrize("looks", [DRAINING, ENDING, BOTH])
def test_when_it_is_said(looks: list[tuple[float, bool, bool]], monkeypatch: pytest.MonkeyPatch) -> None:
    said = _Said()
    for at, hurry, due in looks:
        monkeypatch.setattr("time.monotonic", lambda at=at: 1000.0 + at)
        assert said.due(hurry, 300.0) is due, at
        if due:
            said.is_said(True)


def test_where_nobody_heard_it_is_said_again() -> None:
    said = _Said()
    assert said.due(False, 300.0)
    said.is_said(False)
    assert said.due(False, 300.0)

"""Tries follow each other at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from blendrun.remote import tries
from tests.remote.object_server import Objects, serving


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "FIRST_S", 0.001)


@pytest.fixture
def objects() -> Iterator[Objects]:
    with serving() as found:
        yield found

"""What a record says was planned is what the engine's count of the same request can be held against."""

from __future__ import annotations

from pathlib import Path

import pytest

from blendrun.endpoints.base import Usage
from blendrun.engine.base import Result
from blendrun.planner.feeder import QueuedRequest
from blendrun.store.records import Records
from tests.command import lines_of


@pytest.mark.parametrize(
    ("usage", "hit"),
    [
        # Four items of 100 tokens behind a query of 90: planned as 130 tokens, of which 50 were to be found.
        (Usage(prompt=400, cached=320), 50 + 270),
        (Usage(prompt=130, cached=50), 50),
        # A chat: a picture that had more tokens than were guessed is no hit.
        (Usage(prompt=400, cached=50, output=7), 50),
        (Usage(), 50),
    ],
)
def test_items_of_a_line_find_each_other(tmp_path: Path, usage: Usage, hit: int) -> None:
    records = Records(tmp_path / "records.jsonl")
    for prompt in (3, -1):
        records.add("a", QueuedRequest(0, 0, prompt=prompt, hit=50, tokens=130), Result(0, 200, b"{}", usage), 0.0)
    records.close()
    planned, unplanned = lines_of(tmp_path / "records.jsonl")
    assert planned["planned_hit"] == hit and unplanned["planned_hit"] == 50
    # What a benchmark adds to what its plan promised.
    assert records.within == hit - 50

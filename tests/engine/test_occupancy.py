"""What the scheduler says of what runs in it."""

from __future__ import annotations

from pathlib import Path

from blendrun.engine.scheduler.occupancy import Occupancy


def test_what_one_process_tells_another_reads(tmp_path: Path) -> None:
    reader = Occupancy.create(tmp_path / "occupancy")
    assert reader.running == (0.0, 0.0)
    writer = Occupancy(tmp_path / "occupancy")
    writer.tell(3.5, 2.0)
    assert reader.running == (3.5, 2.0)
    assert not reader.lost
    writer.lose()
    assert reader.lost

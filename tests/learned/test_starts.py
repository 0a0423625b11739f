"""How long engines take to come up: remembered, told of, and what is not known is not said."""

from __future__ import annotations

from pathlib import Path

import pytest

from blendrun.events import Event, Note, PhaseStarted
from blendrun.learned.starts import NO_STARTS, Starting, Starts


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Starts:
    monkeypatch.setenv("BLENDRUN_DATA", str(tmp_path))
    monkeypatch.setenv("BLENDRUN_LEARN", "1")
    return Starts.of("sglang", "model")


def come_up(starts: Starts, seconds: float, *phases: str, log: Path = Path("engine.log")) -> list[Event]:
    """An engine that comes up, looked at once on the way and once at the end."""
    clock, heard = Clock(), list[Event]()
    starting = Starting(heard.append, starts, log, clock)
    for place, name in enumerate(phases):
        clock.now = place * seconds / len(phases)
        starting(PhaseStarted("load", name))
        starting.look()
    clock.now = seconds
    starting.look()
    starting.ready()
    return heard


def test_the_next_start_says_what_is_usual(starts: Starts) -> None:
    first = come_up(starts, 40.0, "engine", "import", "load")
    assert first[1] == PhaseStarted("load", "starting SGLang: importing")
    come_up(starts, 44.0, "import")
    come_up(starts, 300.0, "import")
    found = come_up(starts, 10.0, "engine", "import")
    assert found[-1] == PhaseStarted("load", "starting SGLang: importing (usually 44 s here)")


def test_another_model_has_times_of_its_own(starts: Starts) -> None:
    come_up(starts, 40.0, "import")
    assert Starts.of("sglang", "other").usual is None


def test_one_that_takes_long_is_told_of_once_with_its_log(starts: Starts) -> None:
    heard = come_up(starts, 90.0, "import", "load", "warm up", log=Path("state/engine.log"))
    assert [event.text for event in heard if isinstance(event, Note)] == [
        "the engine is still starting; what it does: state/engine.log"
    ]
    assert not any(isinstance(event, Note) for event in come_up(starts, 59.0, "import"))


def test_what_was_up_before_teaches_nothing(starts: Starts) -> None:
    come_up(starts, 0.1, "engine")
    assert starts.usual is None


def test_nothing_is_kept_where_learning_is_off(starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLENDRUN_LEARN", "0")
    off = Starts.of("sglang", "model")
    come_up(off, 40.0, "import")
    assert (off.usual, starts.usual, NO_STARTS.usual) == (None, None, None)


def test_a_file_that_is_damaged_is_begun_anew(starts: Starts, tmp_path: Path) -> None:
    (tmp_path / "starts.json").write_text("{")
    come_up(starts, 40.0, "import")
    assert starts.usual == 40.0

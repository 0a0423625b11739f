"""Progress as lines of a log: one a phase, one every half minute, each of them one line whatever is in it."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from blendrun.events import Event, Note, PhaseStarted, Progress
from blendrun.report.terminal import progress as views
from blendrun.report.terminal.live_view import LiveView
from blendrun.report.terminal.progress import LineView, choose_view

EVENTS: list[Event] = [
    PhaseStarted("index", "jobs.jsonl"),
    Progress(4_000_000, 9_000_000, "bytes"),
    PhaseStarted("run", "7 requests, 3 at once"),
    Note("resuming: 3 of 7"),
    Note("a hook did not take", warning=True),
    Progress(5, 7, "requests", 1, 2, 100, 50, 30),
]


def lines(events: list[Event], *, quiet: bool = False) -> list[str]:
    stream = io.StringIO()
    with choose_view(stream, quiet=quiet) as view:
        for event in events:
            view(event)
    text = stream.getvalue()
    assert "\r" not in text
    return [line.partition("s ")[2] for line in text.split("\n")[:-1]]


def test_each_phase_and_note_is_a_line() -> None:
    assert lines(EVENTS) == [
        "phase=index detail=jobs.jsonl",
        'phase=run detail="7 requests, 3 at once"',
        'note="resuming: 3 of 7"',
        'warning="a hook did not take"',
    ]


def test_quiet_shows_warnings_alone() -> None:
    assert lines(EVENTS, quiet=True) == ['warning="a hook did not take"']


def test_figures_come_when_the_interval_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "LINE_INTERVAL_S", 0.0)
    found = lines(EVENTS)
    assert found[1] == "phase=index done=4000000 total=9000000 unit=bytes"
    assert found[-1] == (
        "phase=run done=5 total=7 unit=requests failed=1 in_flight=2 "
        "prompt_tokens=100 cached_tokens=50 output_tokens=30"
    )


@given(st.text(max_size=30))
def test_any_text_stays_on_its_line_and_can_be_read_back(text: str) -> None:
    stream = io.StringIO()
    LineView(stream)(Note(text))
    shown = stream.getvalue()
    assert shown.endswith("\n") and len(shown.splitlines()) == 1
    value = shown.partition("note=")[2][:-1]
    assert (json.loads(value) if value.startswith('"') else value) == text


class Gone(io.StringIO):
    """A log whose reader has left."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_a_log_that_is_gone_ends_nothing() -> None:
    with choose_view(Gone(), quiet=False) as view:
        for event in EVENTS:
            view(event)


class TestLiveView:
    @staticmethod
    def screen(events: list[Event], width: int = 80) -> str:
        stream = io.StringIO()
        console = Console(file=stream, force_terminal=True, width=width, markup=False, emoji=False)
        with LiveView(console) as view:
            for event in events:
                view(event)
        return stream.getvalue()

    @pytest.mark.parametrize("width", [1, 10, 80, 300])
    def test_draws_at_any_width(self, width: int) -> None:
        assert self.screen(EVENTS, width)

    @pytest.mark.parametrize("text", ["[/x]", "[red]", ":smile:", "{figures}", "a\nb"])
    def test_shows_names_as_they_are(self, text: str) -> None:
        assert text.split("\n")[0] in self.screen([PhaseStarted("index", text), Note(text)])

"""No control character of others reaches a terminal or a log as it is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from blendrun.events import Event, Note, PhaseStarted, Progress
from blendrun.report.terminal.console import print_parts
from blendrun.report.terminal.live_view import LiveView
from blendrun.report.terminal.progress import LineView
from blendrun.report.terminal.status import status_lines
from blendrun.store.status import BatchStatus, ProcessStatus
from blendrun.text import cut, printable

SET_TITLE = "\x1b]0;OWNED\x07"
ODD = f"a{SET_TITLE}\x9b31m\x7f\r\u202eb"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def clean(text: str) -> bool:
    """Of what is said nothing but line ends, and rich's own colours and cursor, which end in a letter at once."""
    return SET_TITLE[:4] not in text and not any(each in text for each in "\x07\x9b\x7f\u202e")


def test_what_is_written_out_and_what_stays() -> None:
    assert printable(ODD) == "a\\x1b]0;OWNED\\x07\\x9b31m\\x7f\\x0d\\u202eb"
    assert printable("a\nb\tc") == "a\\x0ab\\x09c"
    assert printable("a\nb\x1bc", lines=True) == "a\nb\\x1bc"
    assert printable("\ud800") == "\\ud800"
    for text in ("plain", "é日本語\U0001f600", "a b"):
        assert printable(text) == text


@pytest.mark.parametrize(("text", "kept"), [("abc", "abc"), ("abcd", "abcd"), ("abcde", "abc…")])
def test_long_words_are_cut(text: str, kept: str) -> None:
    assert cut(text, 4) == kept


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_tables_and_sentences(stream: type[io.StringIO]) -> None:
    table = Table(title=ODD)
    table.add_column(ODD)
    table.add_row(ODD)
    table.add_row(Text(ODD, style="bold red"))
    out = stream()
    print_parts([table, ODD, Text(ODD)], out)
    assert clean(out.getvalue()) and out.getvalue().count("OWNED") >= 5


EVENTS: list[Event] = [
    PhaseStarted("load", ODD),
    Note(ODD),
    Note(ODD, warning=True),
    Progress(1, 2, "requests"),
    PhaseStarted("run", ODD),
]


def test_the_live_view() -> None:
    out = Terminal()
    console = Console(file=out, force_terminal=True, width=100, highlight=False, markup=False, emoji=False)
    with LiveView(console, verbose=True) as view:
        for event in EVENTS:
            view(event)
    assert clean(out.getvalue()) and out.getvalue().count("OWNED") >= 4


def test_lines_of_a_log() -> None:
    out = io.StringIO()
    with LineView(out) as view:
        for event in EVENTS:
            view(event)
    assert clean(out.getvalue()) and "\r" not in out.getvalue()


def test_the_status_of_a_run() -> None:
    process = ProcessStatus(1, ODD, ODD, ODD, 3, 0.0)
    status = BatchStatus("b", "m", ODD, "in_progress", 0, process, output_file_id=ODD, error_file_id=ODD)
    lines = status_lines(status, 1.0)
    assert all(map(clean, lines)) and "\x1b" not in "".join(lines)

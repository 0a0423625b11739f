"""On a terminal: a live bar that leaves no trace, whatever the terminal's size and taste."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.command import REPLAY, ids, write_jobs
from tests.terminal import on_terminal

# Slow enough for some frames of the bar.
SLOW = ("--engine-arg", "slots=4", "--engine-arg", "real_time=1000")
_CURSOR_HIDDEN = "\x1b[?25l"
_COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38;[0-9;]+)m")


@pytest.mark.parametrize("width", [100, 5])
def test_a_bar_is_drawn_and_wiped_away_at_any_width(tmp_path: Path, width: int) -> None:
    jobs = write_jobs(tmp_path / "jobs [bold] [/x] :smile:.jsonl".replace("/", "|"), 400)
    code, shown = on_terminal(
        "run", jobs, "-o", tmp_path / "out [/].jsonl".replace("/", "!"), *REPLAY, *SLOW, width=width
    )
    assert code == 0, shown
    assert _CURSOR_HIDDEN in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex(_CURSOR_HIDDEN), "the cursor comes back"
    assert width < 20 or _COLOUR.search(shown)
    assert "Traceback" not in shown
    assert len(ids(tmp_path / "out [!].jsonl")) == 400


def test_brackets_in_a_path_are_no_markup(tmp_path: Path) -> None:
    folder = tmp_path / "a[" / "b]"
    folder.mkdir(parents=True)
    jobs = write_jobs(folder / "jobs.jsonl", 20)
    code, shown = on_terminal("run", jobs, "-o", folder / "out", *REPLAY, width=400)
    assert code == 0, shown
    assert f"{folder}/out" in shown


def test_no_color_means_none(tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 400)
    code, shown = on_terminal("run", jobs, "-o", tmp_path / "out", *REPLAY, *SLOW, NO_COLOR="1")
    assert code == 0
    assert not _COLOUR.search(shown)


@pytest.mark.parametrize(("words", "variables"), [((), {"TERM": "dumb"}), (("-q",), {})])
def test_a_dumb_terminal_and_a_quiet_run_have_no_bar(
    tmp_path: Path, words: tuple[str, ...], variables: dict[str, Any]
) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 20)
    code, shown = on_terminal("run", jobs, "-o", tmp_path / "out", *REPLAY, *words, **variables)
    assert code == 0
    assert _CURSOR_HIDDEN not in shown
    assert ("phase=run" in shown) == (not words)


def test_an_error_is_one_sentence_below_the_bar(tmp_path: Path) -> None:
    code, shown = on_terminal("run", tmp_path / "missing", *REPLAY)
    assert code == 66
    assert f"blendrun: cannot read {tmp_path}" in shown.replace("\r\n", "")

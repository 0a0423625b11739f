"""On a terminal: a live bar that leaves no trace, whatever the terminal's size and taste."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from command import REPLAY, arguments, environment, ids, write_jobs

# Slow enough for some frames of the bar.
SLOW = ("--engine-arg", "slots=4", "--engine-arg", "real_time=1000")
_CURSOR_HIDDEN = "\x1b[?25l"
_COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38;[0-9;]+)m")


def on_terminal(*words: str | Path, width: int = 100, **variables: str) -> tuple[int, str]:
    """Exit code and all that reached the terminal; stdout and stderr both are one."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = subprocess.Popen(
        arguments(*words),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(**{"TERM": "xterm-256color", **variables}),
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass  # The terminal's other end is closed: the process has ended.
    finally:
        os.close(ours)
    return process.wait(timeout=30), shown.decode()


@pytest.mark.parametrize("width", [100, 5])
def test_a_bar_is_drawn_and_wiped_away_at_any_width(tmp_path: Path, width: int):
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


def test_brackets_in_a_path_are_no_markup(tmp_path: Path):
    folder = tmp_path / "a[" / "b]"
    folder.mkdir(parents=True)
    jobs = write_jobs(folder / "jobs.jsonl", 20)
    code, shown = on_terminal("run", jobs, "-o", folder / "out", *REPLAY, width=400)
    assert code == 0, shown
    assert f"{folder}/out" in shown


def test_no_color_means_none(tmp_path: Path):
    jobs = write_jobs(tmp_path / "jobs.jsonl", 400)
    code, shown = on_terminal("run", jobs, "-o", tmp_path / "out", *REPLAY, *SLOW, NO_COLOR="1")
    assert code == 0
    assert not _COLOUR.search(shown)


@pytest.mark.parametrize(("words", "variables"), [((), {"TERM": "dumb"}), (("-q",), {})])
def test_a_dumb_terminal_and_a_quiet_run_have_no_bar(tmp_path: Path, words: tuple[str, ...], variables: dict[str, str]):
    jobs = write_jobs(tmp_path / "jobs.jsonl", 20)
    code, shown = on_terminal("run", jobs, "-o", tmp_path / "out", *REPLAY, *words, **variables)
    assert code == 0
    assert _CURSOR_HIDDEN not in shown
    assert ("phase=run" in shown) == (not words)


def test_an_error_is_one_sentence_below_the_bar(tmp_path: Path):
    code, shown = on_terminal("run", tmp_path / "missing", *REPLAY)
    assert code == 66
    assert f"blendrun: cannot read {tmp_path}" in shown.replace("\r\n", "")

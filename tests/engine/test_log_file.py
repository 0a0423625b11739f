"""Lines reach the disk whole, soon, and also when the process is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from blendrun.engine.scheduler.log_file import LogFile
from tests.processes import wait_for

WRITER = """
import sys, time
from pathlib import Path
from blendrun.engine.scheduler.log_file import LogFile
log, number = LogFile(Path(sys.argv[1])), 0
while True:
    log.write(b'{"step": %d, "filling": "%s"}' % (number, b"x" * 300))
    number += 1
    time.sleep(0.001)
"""

# A limit of file sizes is a disk that can be made larger.
FULL_FOR_A_WHILE = """
import resource, sys
from pathlib import Path
from blendrun.engine.scheduler.log_file import LogFile
log, limits = LogFile(Path(sys.argv[1])), resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
for number in range(10):
    log.write(b'{"step": %d, "filling": "%s"}' % (number, b"x" * 280), at_once=True)
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
log.write(b'{"step": 11}', at_once=True)
"""


class TestLogFile:
    def test_lines_are_written_whole_and_in_order(self, tmp_path: Path) -> None:
        log = LogFile(tmp_path / "log")
        for number in range(100):
            log.write(json.dumps({"step": number}).encode(), at_once=number % 7 == 0)
        log.flush()
        written = (tmp_path / "log").read_bytes()
        assert written.endswith(b"}\n")
        assert [json.loads(line)["step"] for line in written.splitlines()] == list(range(100))

    def test_what_waits_is_written_within_seconds_without_another_line(self, tmp_path: Path) -> None:
        log = LogFile(tmp_path / "log")
        log.write(b"{}")
        wait_for(lambda: bool((tmp_path / "log").stat().st_size))
        assert (tmp_path / "log").read_bytes() == b"{}\n"

    def test_behind_a_torn_line_a_new_one_begins(self, tmp_path: Path) -> None:
        (tmp_path / "log").write_bytes(b'{"step": 1}\n{"st')
        log = LogFile(tmp_path / "log")
        log.write(b'{"step": 3}', at_once=True)
        log.write(b'{"step": 4}', at_once=True)
        assert (tmp_path / "log").read_bytes().splitlines()[1:] == [b'{"st', b'{"step": 3}', b'{"step": 4}']

    def test_a_disk_that_was_full_for_a_while_costs_lines_and_joins_none(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        subprocess.run([sys.executable, "-c", FULL_FOR_A_WHILE, str(path)], check=True)
        written = path.read_bytes().splitlines()
        assert written[-1] == b'{"step": 11}'
        assert len(path.read_bytes()) > 1000, "filled up to the limit"
        torn = [line for line in written if not line.endswith(b"}")]
        assert len(torn) == 1
        assert [json.loads(line)["step"] for line in written if line not in torn] == [0, 1, 2, 11]

    def test_a_killed_process_leaves_whole_lines_up_to_a_second_before(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) as process:
            wait_for(lambda: path.exists() and path.stat().st_size > 0, process)
            process.send_signal(signal.SIGKILL)
        written = path.read_bytes()
        assert written.endswith(b"}\n")
        steps = [json.loads(line)["step"] for line in written.splitlines()]
        assert steps == list(range(len(steps)))
        assert len(steps) > 50


def test_a_closed_one_is_whole_and_keeps_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    before, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    file = LogFile(path)
    file.write(b"one")
    file.close()
    assert path.read_bytes() == b"one\n"
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    while threading.active_count() > threads:
        time.sleep(0.01)

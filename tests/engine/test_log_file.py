"""Lines reach the disk whole, soon, and also when the process is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from blendrun.engine.scheduler.log_file import LogFile

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


class TestLogFile:
    def test_lines_are_written_whole_and_in_order(self, tmp_path: Path):
        log = LogFile(tmp_path / "log")
        for number in range(100):
            log.write(json.dumps({"step": number}).encode(), at_once=number % 7 == 0)
        log.flush()
        written = (tmp_path / "log").read_bytes()
        assert written.endswith(b"}\n")
        assert [json.loads(line)["step"] for line in written.splitlines()] == list(range(100))

    def test_what_waits_is_written_within_seconds_without_another_line(self, tmp_path: Path):
        log = LogFile(tmp_path / "log")
        log.write(b"{}")
        deadline = time.monotonic() + 10
        while not (tmp_path / "log").stat().st_size and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (tmp_path / "log").read_bytes() == b"{}\n"

    def test_a_killed_process_leaves_whole_lines_up_to_a_second_before(self, tmp_path: Path):
        path = tmp_path / "log"
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) as process:
            deadline = time.monotonic() + 20
            while not (path.exists() and path.stat().st_size) and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
        written = path.read_bytes()
        assert written.endswith(b"}\n")
        steps = [json.loads(line)["step"] for line in written.splitlines()]
        assert steps == list(range(len(steps)))
        assert len(steps) > 50

"""The disk: full, read-only, broken on the way, of several file systems. Each fault is made, none is pretended."""

from __future__ import annotations

import gzip
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import await_answers, start
from tests.faults.batch import SLOW, STATED, Batch, refusal
from tests.faults.disks import PAGE, Mounts, fill, namespace
from tests.needs import needs

# Exit code of what cannot be written.
UNAVAILABLE = 73


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    with namespace() as found:
        yield found


class TestFull:
    def test_at_every_page_of_a_run_what_was_answered_stays_and_room_is_all_it_takes(
        self, tmp_path: Path, mounts: Mounts
    ) -> None:
        """The disk fills up one page later each time: at the journal, at the manifest, at the answers."""
        disk = mounts.tmpfs(tmp_path / "disk", 1024)
        batch = Batch(tmp_path / "jobs.jsonl", disk / "out.jsonl", 20)
        named: list[str] = []
        for pages in range(100):
            ballast = fill(disk, pages * PAGE)
            done = batch.run()
            if done.returncode == 0:
                break
            sentence = refusal(done)
            assert done.returncode == UNAVAILABLE, done.stderr
            what, _, remedy = sentence.partition(": No space left on device; make room there, and the same command ")
            assert what.startswith(f"blendrun: cannot write {disk}/out.jsonl"), sentence
            assert remedy, sentence
            named.append(what.removeprefix(f"blendrun: cannot write {disk}/"))
            kept = batch.records()
            left = sorted(path.name for path in disk.iterdir() if path.name.startswith("."))
            assert left == [], "half an output takes no room"
            ballast.unlink()
            resumed = batch.finish(kept).stderr
            assert not 0 < len(kept) < 20 or f"resuming: {len(kept)} of 20 requests are finished" in resumed
            for path in (batch.out, batch.state):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        else:
            pytest.fail("the disk was full at any size")
        state = "out.jsonl.blendrun"
        assert {f"{state}/journal", f"{state}/manifest.json", "out.jsonl"} <= set(named), "each moment was met"

    def test_a_full_disk_costs_records_and_no_answer_when_they_are_elsewhere(
        self, tmp_path: Path, mounts: Mounts
    ) -> None:
        disk = mounts.tmpfs(tmp_path / "disk", 64)
        batch = Batch(tmp_path / "jobs.jsonl", tmp_path / "out.jsonl", 500)
        batch.state.mkdir()
        (batch.state / "records.jsonl").symlink_to(disk / "records.jsonl")
        fill(disk, 2 * PAGE)
        batch.finish([])

    def test_retrying_failures_needs_room_for_a_copy_and_says_so(self, tmp_path: Path, mounts: Mounts) -> None:
        disk = mounts.tmpfs(tmp_path / "disk", 1024)
        batch = Batch(tmp_path / "jobs.jsonl", disk / "out.jsonl", 200)
        assert batch.run("--engine-arg", "fail_every=10").returncode == 3
        before = batch.journal.read_bytes()
        ballast = fill(disk, 4 * PAGE)
        done = batch.run("--retry-errors")
        assert done.returncode == UNAVAILABLE
        assert "journal.kept: No space left on device; make room there" in refusal(done)
        assert batch.journal.read_bytes() == before
        assert not (batch.state / "journal.kept").exists()
        ballast.unlink()
        kept = [record for record in batch.records() if b'"ok":true' in record]
        batch.finish(kept, "--retry-errors")

    def test_no_room_to_unpack_an_input(self, tmp_path: Path, mounts: Mounts) -> None:
        disk = mounts.tmpfs(tmp_path / "disk", 256)
        batch = Batch(tmp_path / "jobs.jsonl", disk / "out.jsonl", 5000)
        batch.jobs.write_bytes(gzip.compress(batch.jobs.read_bytes()))
        done = batch.run()
        assert done.returncode == UNAVAILABLE
        assert f"cannot unpack {batch.jobs} into {batch.state / 'spool'}: No space left on device" in refusal(done)
        assert "make room there" in refusal(done)
        assert list((batch.state / "spool").iterdir()) == [], "what was unpacked takes no room"

    @pytest.mark.parametrize("kib", [8, 20, 40])
    def test_a_limit_of_file_sizes_is_like_a_full_disk(self, tmp_path: Path, kib: int) -> None:
        batch = Batch(tmp_path / "jobs.jsonl", tmp_path / "out.jsonl", 100)

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, kib * 1024))

        done = batch.run(process=True, preexec_fn=limit)
        assert done.returncode == UNAVAILABLE
        assert f"cannot write {batch.journal}: File too large; raise the limit of file sizes" in refusal(done)
        kept = batch.records()
        assert kept
        batch.finish(kept)


class TestReadOnly:
    def test_from_the_start_it_is_said_before_any_work(self, tmp_path: Path, mounts: Mounts) -> None:
        """A real read-only mount: root may write where modes forbid it."""
        target = tmp_path / "disk"
        disk = mounts.tmpfs(target, 1024)
        batch = Batch(tmp_path / "jobs.jsonl", disk / "out.jsonl", 20)
        mounts.read_only(target, True)
        done = batch.run()
        assert done.returncode == UNAVAILABLE
        assert "phase=index" not in done.stderr
        assert "Read-only file system; give an output in a folder that can be written, with -o" in refusal(done)
        mounts.read_only(target, False)
        batch.finish([])

    def test_between_two_runs_it_costs_nothing(self, tmp_path: Path, mounts: Mounts) -> None:
        target = tmp_path / "disk"
        disk = mounts.tmpfs(target, 1024)
        batch = Batch(tmp_path / "jobs.jsonl", disk / "out.jsonl", 400, **STATED)
        kept = batch.kill_after(10)
        mounts.read_only(target, True)
        done = batch.run()
        assert done.returncode == UNAVAILABLE
        assert "Read-only file system" in refusal(done)
        mounts.read_only(target, False)
        batch.finish(kept)

    def test_an_output_folder_that_is_read_only_while_the_state_is_not(self, tmp_path: Path, mounts: Mounts) -> None:
        """Said at the start, not after hours when the answers are to be written."""
        target = tmp_path / "disk"
        disk = mounts.tmpfs(target, 1024)
        mounts.over(target / "out.jsonl.blendrun", 1024)
        batch = Batch(tmp_path / "jobs.jsonl", disk / "out.jsonl", 20)
        mounts.read_only(target, True)
        done = batch.run()
        assert done.returncode == UNAVAILABLE
        assert f"cannot write {batch.out}: Read-only file system; give an output in a folder" in refusal(done)
        assert "phase=index" not in done.stderr

    def test_a_file_system_that_turns_read_only_on_the_way(self, tmp_path: Path, mounts: Mounts) -> None:
        """As ext4 does after an error of its disk: what reached the disk counts, and is not answered again."""
        image, target = tmp_path / "image", tmp_path / "disk"
        _make_ext4(image)
        try:
            disk = mounts.ext4(target, image)
        except subprocess.CalledProcessError:
            pytest.skip(needs("a user who may mount an image of ext4", "run the tests as root"))
        batch = Batch(tmp_path / "jobs.jsonl", disk / "out.jsonl", 400, **STATED)
        process = start(*batch.command, *SLOW)
        await_answers(batch.journal, 10, process)
        # Before: what is written meanwhile need not have reached the disk.
        safe = batch.records()
        os.sync()
        mounts.break_ext4(target)
        _, stderr = process.communicate()
        assert process.returncode == UNAVAILABLE, stderr
        sentence = stderr.splitlines()[-1]
        assert sentence == (
            f"blendrun: cannot write {batch.journal}: Read-only file system; make its file system writable, and the "
            "same command resumes: what is in it is kept"
        )
        mounts.unmount(target)
        mounts.ext4(target, image)
        left = batch.records()
        assert left[: len(safe)] == safe
        batch.finish(left)


def _make_ext4(image: Path) -> None:
    image.write_bytes(b"")
    os.truncate(image, 16 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", image], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip(needs("mkfs.ext4", "apt-get install e2fsprogs"))


class TestSeveralFileSystems:
    def test_a_state_folder_elsewhere_and_readers_see_whole_answers_only(self, tmp_path: Path, mounts: Mounts) -> None:
        """The answers are written beside the output, so the last rename stays within one file system."""
        disk = mounts.tmpfs(tmp_path / "disk", 16_384)
        batch = Batch(tmp_path / "jobs.jsonl", disk / "out.jsonl", 4000)
        batch.jobs.write_bytes(gzip.compress(batch.jobs.read_bytes()))
        mounts.over(tmp_path / "disk" / "out.jsonl.blendrun", 16_384)
        assert batch.state.stat().st_dev != disk.stat().st_dev
        assert batch.run("--limit", "1000").returncode == 0
        first = batch.out.read_bytes()
        seen: list[bytes] = []
        over = threading.Event()

        def read() -> None:
            while not over.is_set():
                content = batch.out.read_bytes()
                if not seen or content != seen[-1]:
                    seen.append(content)
                time.sleep(0.0005)

        reader = threading.Thread(target=read)
        reader.start()
        kept = batch.records()
        batch.finish(kept)
        time.sleep(0.01)
        over.set()
        reader.join()
        assert seen == [first, batch.out.read_bytes()]

    def test_killed_while_it_writes_the_answers_the_old_ones_stand(self, tmp_path: Path) -> None:
        batch = Batch(tmp_path / "jobs.jsonl", tmp_path / "out.jsonl", 10_000)
        assert batch.run("--limit", "10").returncode == 0
        first = batch.out.read_bytes()
        process = start(*batch.command, stderr=subprocess.DEVNULL)

        def halves() -> list[Path]:
            return [path for path in tmp_path.glob(".blendrun-*.tmp") if path.stat().st_size > 100_000]

        while process.poll() is None and not halves():
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "too fast for this test"
        assert halves()
        assert batch.out.read_bytes() == first
        kept = batch.records()
        assert len(kept) == batch.rows
        assert "phase=run" not in batch.finish(kept).stderr, "no engine for answers that are on disk"
        assert not list(tmp_path.glob(".*")), "what the kill left is gone"

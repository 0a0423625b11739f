"""Nothing is replaced that a run did not write itself: inputs, answers, state, files of others, by whatever name."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command import REPLAY, await_answers, blendrun, ids, start, write_jobs
from tests.faults.batch import SLOW, refusal
from tests.needs import needs

ROWS = 6
PRECIOUS = b"precious\n"


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return write_jobs(tmp_path / "jobs.jsonl", ROWS)


def run(jobs: Path, out: Path, *words: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return blendrun("run", "-q", jobs, "-o", out, *REPLAY, *words, **options)  # type: ignore[arg-type]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class TestAskedFiles:
    """What an option has written beside the answers."""

    OPTIONS = ("--trace", "--metrics-textfile")

    @pytest.mark.parametrize("option", OPTIONS)
    @pytest.mark.parametrize(
        "name",
        ["sub/../jobs.jsonl", "link", "hard", "a.jsonl", "a.jsonl.errors.jsonl", "a.jsonl.blendrun/x", "state/journal"],
    )
    def test_none_is_a_file_of_the_job_itself(self, jobs: Path, tmp_path: Path, option: str, name: str) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "link").symlink_to("jobs.jsonl")
        (tmp_path / "hard").hardlink_to(jobs)
        (tmp_path / "state").symlink_to("a.jsonl.blendrun")
        assert run(jobs, tmp_path / "a.jsonl", "--limit", "2").returncode == 0
        before = {path: path.read_bytes() for path in (jobs, *(tmp_path / "a.jsonl.blendrun").glob("[jm]*"))}
        done = run(jobs, tmp_path / "a.jsonl", option, tmp_path / name)
        assert done.returncode == 2, done.stderr
        assert f"{option} {tmp_path / name} is" in refusal(done)
        assert {path: path.read_bytes() for path in before} == before

    @pytest.mark.parametrize("option", OPTIONS)
    def test_a_hard_link_to_the_journal_is_the_journal(self, jobs: Path, tmp_path: Path, option: str) -> None:
        assert run(jobs, tmp_path / "a.jsonl").returncode == 0
        (tmp_path / "kept").hardlink_to(tmp_path / "a.jsonl.blendrun" / "journal")
        assert run(jobs, tmp_path / "a.jsonl", option, tmp_path / "kept").returncode == 2

    @pytest.mark.parametrize("option", OPTIONS)
    @pytest.mark.parametrize("name", ["other.jsonl", "other.jsonl.errors.jsonl", "other.jsonl.blendrun/plan.json"])
    def test_none_is_a_file_of_another_run(self, jobs: Path, tmp_path: Path, option: str, name: str) -> None:
        assert run(jobs, tmp_path / "other.jsonl").returncode == 0
        whole = (tmp_path / "other.jsonl").read_bytes()
        done = run(jobs, tmp_path / "a.jsonl", option, tmp_path / name)
        assert done.returncode in (2, 73), done.stderr
        assert (tmp_path / "other.jsonl").read_bytes() == whole
        assert "a.jsonl.blendrun" not in names(tmp_path), "before anything is opened"

    @pytest.mark.parametrize("option", OPTIONS)
    def test_one_of_somebody_else_is_replaced_when_that_is_asked_for(
        self, jobs: Path, tmp_path: Path, option: str
    ) -> None:
        asked = tmp_path / "asked"
        asked.write_bytes(PRECIOUS)
        done = run(jobs, tmp_path / "a.jsonl", option, asked)
        assert done.returncode == 73
        assert "is there already; give another name, or --overwrite" in refusal(done)
        assert asked.read_bytes() == PRECIOUS
        assert run(jobs, tmp_path / "a.jsonl", option, asked, "--overwrite").returncode == 0
        assert b"blendrun" in asked.read_bytes()
        # From now on it is known.
        assert run(jobs, tmp_path / "b.jsonl", option, asked).returncode == 0

    def test_a_device_is_written_to_and_stays_one(self, jobs: Path, tmp_path: Path) -> None:
        nowhere = ("--trace", "/dev/null", "--metrics-textfile", "/dev/null")
        assert run(jobs, tmp_path / "a.jsonl", *nowhere).returncode == 0
        assert Path("/dev/null").is_char_device()

    @pytest.mark.parametrize("option", ["--save", "--report", "--order-out"])
    def test_a_plans_files_are_looked_at_alike(self, jobs: Path, tmp_path: Path, option: str) -> None:
        plan = ("plan", "-q", jobs, "--model", "llama-3-8b", option)
        foreign = tmp_path / "mine"
        foreign.write_bytes(PRECIOUS)
        done = blendrun(*plan, foreign)
        assert (done.returncode, foreign.read_bytes()) == (73, PRECIOUS)
        assert run(jobs, tmp_path / "a.jsonl").returncode == 0
        assert blendrun(*plan, tmp_path / "a.jsonl").returncode == 73
        assert blendrun(*plan, tmp_path / "a.jsonl.blendrun" / "journal").returncode == 2

    def test_a_page_is_made_anew_and_no_other_file_replaced(self, jobs: Path, tmp_path: Path) -> None:
        assert run(jobs, tmp_path / "a.jsonl").returncode == 0
        page = tmp_path / "page.html"
        assert [blendrun("report", tmp_path / "a.jsonl", "-o", page).returncode for _ in range(2)] == [0, 0]
        page.write_text("<!doctype html><title>My own</title>")
        assert blendrun("report", tmp_path / "a.jsonl", "-o", page).returncode == 73
        assert "My own" in page.read_text()
        assert blendrun("report", tmp_path / "a.jsonl", "-o", page, "--overwrite").returncode == 0


class TestOutput:
    @pytest.mark.parametrize("name", [".a.jsonl.tmp", ".a.jsonl.errors.jsonl.tmp", "a.jsonl.part", ".blendrun-0.tmp"])
    def test_no_file_is_taken_for_a_passing_one(self, jobs: Path, tmp_path: Path, name: str) -> None:
        other = tmp_path / name
        other.write_bytes(jobs.read_bytes())
        assert run(other, tmp_path / "a.jsonl").returncode == 0
        assert run(jobs, tmp_path / "b.jsonl").returncode == 0
        assert other.read_bytes() == jobs.read_bytes()

    def test_it_is_written_through_a_link_of_the_users_own(self, jobs: Path, tmp_path: Path) -> None:
        disk, out = tmp_path / "disk", tmp_path / "a.jsonl"
        disk.mkdir()
        (disk / "hop").symlink_to("answers")
        out.symlink_to("disk/hop")
        assert run(jobs, out).returncode == 0, "a file that is not there yet"
        first = (disk / "answers").stat().st_ino
        assert run(jobs, out, "--no-resume").returncode == 0
        assert out.is_symlink() and (disk / "hop").is_symlink()
        assert len(ids(disk / "answers")) == ROWS
        assert (disk / "answers").stat().st_ino != first, "replaced whole"
        assert names(disk) == {"hop", "answers"}

    @pytest.mark.parametrize("mode", [0o777, 0o1777])
    def test_no_link_is_followed_in_a_folder_of_all(self, jobs: Path, tmp_path: Path, mode: int) -> None:
        victim, shared = tmp_path / "victim", tmp_path / "shared"
        shared.mkdir()
        shared.chmod(mode)
        victim.write_bytes(PRECIOUS)
        (shared / "a.jsonl").symlink_to(victim)
        done = run(jobs, shared / "a.jsonl", "--overwrite")
        assert done.returncode == 73, done.stderr
        assert "it is a link, which others may have put there" in refusal(done)
        trace = run(jobs, tmp_path / "b.jsonl", "--trace", shared / "a.jsonl", "--overwrite")
        assert trace.returncode == 73
        assert victim.read_bytes() == PRECIOUS

    @pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.errors.jsonl"])
    def test_what_appears_there_while_it_runs_stays(self, jobs: Path, tmp_path: Path, name: str) -> None:
        """A link that somebody plants, or a file of the user's own."""
        jobs = write_jobs(tmp_path / "more.jsonl", 20)
        shared, victim = tmp_path / "shared", tmp_path / "victim"
        shared.mkdir()
        shared.chmod(0o777)
        victim.write_bytes(PRECIOUS)
        process = start("run", "-q", jobs, "-o", shared / "a.jsonl", *REPLAY, *SLOW)
        await_answers(shared / "a.jsonl.blendrun" / "journal", 1, process)
        (shared / name).symlink_to(victim)
        _, said = process.communicate()
        assert process.returncode == 73, said
        assert victim.read_bytes() == PRECIOUS
        (shared / name).unlink()
        assert run(jobs, shared / "a.jsonl").returncode == 0
        assert len(ids(shared / "a.jsonl")) == 20

    def test_the_answers_of_another_run_are_not_replaced_through_a_link(self, jobs: Path, tmp_path: Path) -> None:
        assert run(jobs, tmp_path / "a.jsonl").returncode == 0
        whole = (tmp_path / "a.jsonl").read_bytes()
        (tmp_path / "b.jsonl").symlink_to("a.jsonl")
        done = run(jobs, tmp_path / "b.jsonl", "--limit", "1")
        assert done.returncode == 73
        assert (tmp_path / "a.jsonl").read_bytes() == whole

    def test_a_name_without_room_for_the_state_folders_is_a_sentence(self, jobs: Path, tmp_path: Path) -> None:
        done = run(jobs, tmp_path / ("x" * 250))
        assert done.returncode == 73
        assert "File name too long" in refusal(done)

    @pytest.mark.parametrize("ring", ["a.jsonl.blendrun", "ring"])
    def test_links_in_a_ring_are_a_sentence(self, jobs: Path, tmp_path: Path, ring: str) -> None:
        (tmp_path / ring).symlink_to(ring)
        done = run(jobs, tmp_path / ("a.jsonl" if ring != "ring" else "ring/a.jsonl"))
        assert done.returncode == 73
        assert refusal(done).startswith("blendrun: cannot write ")

    def test_an_input_in_the_state_folder_is_refused(self, jobs: Path, tmp_path: Path) -> None:
        out = tmp_path / "a.jsonl"
        kept = tmp_path / "a.jsonl.blendrun" / "status.json"
        kept.parent.mkdir()
        text = jobs.read_bytes()
        jobs.rename(kept)
        jobs.symlink_to(kept)
        done = run(jobs, out)
        assert done.returncode == 73
        assert refusal(done) == f"blendrun: the input {jobs} is in the state folder of the output; give another -o"
        assert kept.read_bytes() == text

    def test_a_state_folder_through_a_link_is_refused(self, jobs: Path, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "a.jsonl.blendrun").symlink_to("elsewhere")
        done = run(jobs, tmp_path / "a.jsonl")
        assert done.returncode == 73
        assert "it is a link, and a run's state is its user's alone" in refusal(done)
        assert names(tmp_path / "elsewhere") == set()

    @pytest.mark.skipif(os.geteuid() != 0, reason=needs("root, to make a folder of another user", "run as root"))
    def test_a_state_folder_of_another_user_is_refused(self, jobs: Path, tmp_path: Path) -> None:
        state = tmp_path / "a.jsonl.blendrun"
        state.mkdir(mode=0o777)
        os.chown(state, 12345, 12345)
        done = run(jobs, tmp_path / "a.jsonl")
        assert done.returncode == 73
        assert "it belongs to another user" in refusal(done)
        assert names(state) == set()


class TestFinished:
    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: b"",
            lambda text: text[: text.index(b"\n") + 1],
            lambda text: text[: len(text) - 7],
            None,
        ],
        ids=["emptied", "lines cut off", "a line torn", "removed"],
    )
    @pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.errors.jsonl"])
    def test_what_is_missing_is_written_again_without_an_engine(
        self, tmp_path: Path, name: str, damage: Callable[[bytes], bytes] | None
    ) -> None:
        jobs, out = write_jobs(tmp_path / "jobs.jsonl", 20), tmp_path / "a.jsonl"
        assert run(jobs, out, "--engine-arg", "fail_every=4").returncode == 3
        path = tmp_path / name
        whole = path.read_bytes()
        records = (tmp_path / "a.jsonl.blendrun" / "journal").read_bytes()
        path.unlink() if damage is None else path.write_bytes(damage(whole))
        again = run(jobs, out, "--engine-arg", "fail_every=4")
        assert again.returncode == 3, again.stderr
        assert path.read_bytes() == whole
        assert (tmp_path / "a.jsonl.blendrun" / "journal").read_bytes() == records

    def test_what_somebody_has_edited_is_kept_and_said(self, jobs: Path, tmp_path: Path) -> None:
        out = tmp_path / "a.jsonl"
        assert run(jobs, out).returncode == 0
        whole = out.read_bytes()
        edited = whole.replace(b"null", b"NULL", 1)
        out.write_bytes(edited)
        done = run(jobs, out)
        assert done.returncode == 73
        assert "is not what this run wrote there; move it away, or give --overwrite to replace it" in refusal(done)
        assert out.read_bytes() == edited
        assert run(jobs, out, "--overwrite").returncode == 0
        assert out.read_bytes() == whole

    def test_size_and_digest_stand_in_the_manifest(self, jobs: Path, tmp_path: Path) -> None:
        out = tmp_path / "a.jsonl"
        assert run(jobs, out).returncode == 0
        manifest = json.loads((tmp_path / "a.jsonl.blendrun" / "manifest.json").read_bytes())
        assert [each["size"] for each in manifest["written"] if each["name"] == "output"] == [out.stat().st_size]


class TestLimits:
    def test_another_input_is_refused_whatever_the_limit(self, jobs: Path, tmp_path: Path) -> None:
        out = tmp_path / "a.jsonl"
        assert run(jobs, out).returncode == 0
        whole = out.read_bytes()
        lines = jobs.read_bytes().splitlines(keepends=True)
        changed = tmp_path / "changed.jsonl"
        for name, text in {
            "edited": [*lines[:3], lines[3].replace(b"question", b"QUESTION"), *lines[4:]],
            "shorter": lines[:4],
            "longer": [*lines, lines[0].replace(b"id 0", b"id new")],
            "another order": lines[::-1],
        }.items():
            changed.write_bytes(b"".join(text))
            for limit in (5, ROWS, 1000):
                if (name, limit) in (("longer", 5), ("longer", ROWS)):
                    # What is read is the same.
                    continue
                done = run(changed, out, "--limit", str(limit))
                assert done.returncode == 78, f"{name}, {limit}: {done.stderr}"
                assert "what changed: the input" in refusal(done)
        assert out.read_bytes() == whole

    def test_a_limit_may_grow_and_shrink_on_the_same_input(self, jobs: Path, tmp_path: Path) -> None:
        out = tmp_path / "a.jsonl"
        for limit, count in (("2", 2), ("4", 4), ("3", 3), ("1000", ROWS), ("1", 1)):
            assert run(jobs, out, "--limit", limit).returncode == 0
            assert len(ids(out)) == count
        assert run(jobs, out).returncode == 0
        assert len(ids(out)) == ROWS

    def test_a_packed_input_that_keeps_size_and_time_is_noticed(self, jobs: Path, tmp_path: Path) -> None:
        packed, out = tmp_path / "jobs.gz", tmp_path / "a.jsonl"
        text = jobs.read_bytes()
        packed.write_bytes(gzip.compress(text, 0, mtime=0))
        os.utime(packed, (1_000_000_000, 1_000_000_000))
        assert run(packed, out).returncode == 0
        with packed.open("r+b") as file:
            file.write(gzip.compress(text.replace(b"question 3", b"question X"), 0, mtime=0))
        os.utime(packed, (1_000_000_000, 1_000_000_000))
        done = run(packed, out)
        assert done.returncode == 78, done.stderr


class TestMerge:
    def shards(self, jobs: Path, out: Path) -> None:
        for number in (1, 2):
            assert run(jobs, out, "--shard", f"{number}/2").returncode == 0

    def test_the_input_as_output_is_refused_by_every_shard(self, jobs: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("jobs.jsonl")
        for name in ("jobs.jsonl", "link"):
            done = run(jobs, tmp_path / name, "--shard", "1/2")
            assert done.returncode == 73
            assert refusal(done) == f"blendrun: the output {tmp_path / name} is the input; give another -o"

    @pytest.mark.parametrize("link", [False, True])
    def test_it_never_replaces_an_input(self, jobs: Path, tmp_path: Path, link: bool) -> None:
        out = tmp_path / "a.jsonl"
        self.shards(jobs, out)
        text = jobs.read_bytes()
        out.symlink_to("jobs.jsonl") if link else out.hardlink_to(jobs)
        assert blendrun("merge", out, "--overwrite").returncode == 73
        assert jobs.read_bytes() == text

    @pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.errors.jsonl"])
    def test_it_never_replaces_what_a_shard_wrote(self, jobs: Path, tmp_path: Path, name: str) -> None:
        out, shard = tmp_path / "a.jsonl", tmp_path / "a.1-of-2.jsonl"
        self.shards(jobs, out)
        text = shard.read_bytes()
        (tmp_path / name).symlink_to(shard.name)
        assert blendrun("merge", out, "--overwrite").returncode == 73
        assert shard.read_bytes() == text

    def test_it_replaces_what_a_merge_made_and_no_other_file_unasked(self, jobs: Path, tmp_path: Path) -> None:
        out = tmp_path / "a.jsonl"
        self.shards(jobs, out)
        out.write_bytes(PRECIOUS)
        assert blendrun("merge", out).returncode == 73
        assert out.read_bytes() == PRECIOUS
        assert blendrun("merge", out, "--overwrite").returncode == 0
        assert ids(out) == [f"id {row}" for row in range(ROWS)]
        assert blendrun("merge", out).returncode == 0
        (tmp_path / "a.jsonl.errors.jsonl").write_bytes(PRECIOUS)
        assert blendrun("merge", out).returncode == 73
        assert (tmp_path / "a.jsonl.errors.jsonl").read_bytes() == PRECIOUS

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: text.replace(b"null", b"NULL", 1),
            lambda text: b"".join(text.splitlines(keepends=True)[::-1]),
            None,
        ],
        ids=["edited", "turned around", "of another shard"],
    )
    def test_a_shards_file_is_what_its_shard_wrote(
        self, jobs: Path, tmp_path: Path, change: Callable[[bytes], bytes] | None
    ) -> None:
        """As many lines, but others."""
        out, shard = tmp_path / "a.jsonl", tmp_path / "a.2-of-2.jsonl"
        self.shards(jobs, out)
        shard.write_bytes((tmp_path / "a.1-of-2.jsonl").read_bytes() if change is None else change(shard.read_bytes()))
        done = blendrun("merge", out)
        assert done.returncode == 65
        assert "is not what its shard wrote there; move it away, and run that shard again" in refusal(done)
        assert not out.exists()
        shard.unlink()
        assert blendrun("merge", out).returncode == 75
        assert run(jobs, out, "--shard", "2/2").returncode == 0
        assert blendrun("merge", out).returncode == 0

    @pytest.mark.parametrize("name", ["", "/", "."])
    def test_a_name_of_no_file_is_a_usage_error(self, tmp_path: Path, name: str) -> None:
        assert blendrun("merge", name, cwd=tmp_path).returncode == 2

    @pytest.mark.parametrize("keep", [lambda data: b"", lambda data: data[:9], lambda data: data[: len(data) // 2]])
    def test_a_torn_shard_file_is_mended_by_the_shard(
        self, jobs: Path, tmp_path: Path, keep: Callable[[bytes], bytes]
    ) -> None:
        out = tmp_path / "a.jsonl"
        self.shards(jobs, out)
        torn = tmp_path / "a.2-of-2.jsonl.blendrun" / "shard.npz"
        torn.write_bytes(keep(torn.read_bytes()))
        done = blendrun("merge", out)
        assert done.returncode == 75
        assert "shards not finished yet: 2 of 2; run them, then merge again" in refusal(done)
        assert run(jobs, out, "--shard", "2/2").returncode == 0
        assert blendrun("merge", out).returncode == 0
        assert ids(out) == [f"id {row}" for row in range(ROWS)]

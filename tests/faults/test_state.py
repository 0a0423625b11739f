"""Damage and change between two runs: what is whole is kept, what does not fit is refused by name, nothing is mixed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command import await_answers, blendrun, line, start
from tests.faults.batch import SLOW, STATED, Batch, refusal
from tests.processes import wait_for

ROWS = 200
REFUSED = 78


@pytest.fixture
def fresh(tmp_path: Path) -> Batch:
    """A job that nobody has begun."""
    return Batch(tmp_path / "jobs.jsonl", tmp_path / "out.jsonl", ROWS, **STATED)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """A job whose run was killed after some answers: once, for all who damage a copy of what it left."""
    folder = tmp_path_factory.mktemp("killed")
    batch = Batch(folder / "jobs.jsonl", folder / "out.jsonl", ROWS, **STATED)
    batch.kill_after(10)
    return batch


@pytest.fixture
def batch(killed: Batch, tmp_path: Path) -> Batch:
    """A copy of the killed job."""
    return killed.copied(tmp_path)


class TestJournal:
    def test_a_torn_tail_costs_the_record_that_was_being_written(self, batch: Batch) -> None:
        kept = batch.records()
        with batch.journal.open("ab") as file:
            file.write(kept[0][: len(kept[0]) // 2])
        batch.finish(kept)

    def test_a_tail_of_zeros_as_a_power_cut_leaves_it_costs_nothing(self, batch: Batch) -> None:
        kept = batch.records()
        with batch.journal.open("ab") as file:
            file.write(bytes(10_000))
        batch.finish(kept)

    @pytest.mark.parametrize("place", [0.0, 0.3, 0.99])
    def test_a_flipped_byte_costs_its_record_and_no_other(self, fresh: Batch, place: float) -> None:
        assert fresh.run().returncode == 0
        content = bytearray(fresh.journal.read_bytes())
        header = content.index(b"\n") + 1
        at = header + int(place * (len(content) - header)) if place else 3
        content[at] ^= 4
        fresh.journal.write_bytes(content)
        answers = fresh.out.read_bytes()
        done = fresh.run()
        assert done.returncode == 0, done.stderr
        assert "1 damaged journal records passed over; their requests run again" in done.stderr
        again = ROWS if place == 0 else ROWS + 1
        assert len(fresh.records()) == again, "the header's damage costs no record, a record's costs one"
        assert fresh.journal.read_bytes().startswith(content)
        assert fresh.out.read_bytes() == answers

    def test_garbage_behind_the_end_is_passed_over(self, batch: Batch) -> None:
        kept = batch.records()
        with batch.journal.open("ab") as file:
            file.write(b"\n\n12345678 not a record\n" + bytes(range(256)) + b"\n")
        done = batch.run()
        assert done.returncode == 0, done.stderr
        assert "damaged journal records passed over" in done.stderr
        records = batch.records()
        assert records[: len(kept)] == kept
        assert sum(b'"key"' in record for record in records) == ROWS, "nothing whole ran twice"

    def test_truncated_to_nothing_it_says_what_is_lost_and_all_runs_again(self, batch: Batch) -> None:
        batch.journal.write_bytes(b"")
        done = batch.finish([])
        assert "the journal was empty: what it held is lost, and its requests run again" in done.stderr

    def test_truncated_to_nothing_beside_answers_another_input_is_still_refused(self, fresh: Batch) -> None:
        """Else a lost journal would let the next job write over answers that are nowhere else."""
        assert fresh.run().returncode == 0
        answers = fresh.out.read_bytes()
        fresh.journal.write_bytes(b"")
        fresh.jobs.write_bytes(line("another") + b"\n")
        done = fresh.run()
        assert done.returncode == REFUSED
        assert "what changed: the input" in refusal(done)
        assert fresh.out.read_bytes() == answers

    def test_a_journal_of_another_version_is_refused_and_left_alone(self, batch: Batch) -> None:
        content = batch.journal.read_bytes().replace(b"blendrun-journal 1", b"blendrun-journal 2", 1)
        batch.journal.write_bytes(content)
        done = batch.run()
        assert done.returncode == REFUSED
        assert "was written by another version; move it away, or use --no-resume" in refusal(done)
        assert batch.journal.read_bytes() == content


class TestLogs:
    @pytest.mark.parametrize("name", ["records.jsonl", "steps.jsonl", "summary.json", "estimates"])
    def test_torn_they_stop_nothing(self, batch: Batch, name: str) -> None:
        kept = batch.records()
        (batch.state / name).write_bytes(b'{"run": 1, "custom_id": "id')
        batch.finish(kept)

    def test_behind_a_torn_record_the_next_run_begins_a_line(self, batch: Batch) -> None:
        kept = batch.records()
        records = batch.state / "records.jsonl"
        records.write_bytes(b'{"run":1}\n{"run":1,"custom_id":"id')
        batch.finish(kept)
        first, torn, *rest = records.read_bytes().splitlines()
        assert (first, torn) == (b'{"run":1}', b'{"run":1,"custom_id":"id')
        assert len(rest) == ROWS - len(kept)
        assert len({json.loads(record)["custom_id"] for record in rest}) == len(rest)


def _edit(lines: list[bytes]) -> list[bytes]:
    return [text.replace(b"question 3", b"question X") for text in lines]


def _grow(lines: list[bytes]) -> list[bytes]:
    return [*lines, line("new", "one more")]


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "edited to the same size": _edit,
    "grown": _grow,
    "shorter": lambda lines: lines[:-1],
    "another order": lambda lines: lines[::-1],
    "a line that is no request": lambda lines: [*lines, b"not a request"],
}


class TestInput:
    @pytest.mark.parametrize("how", CHANGES)
    def test_changed_between_two_runs_it_is_refused_and_accepted_only_the_new_runs(
        self, batch: Batch, how: str
    ) -> None:
        kept = batch.records()
        lines = batch.jobs.read_bytes().splitlines()
        changed = CHANGES[how](lines)
        batch.jobs.write_bytes(b"\n".join(changed) + b"\n")
        before = batch.journal.read_bytes()
        done = batch.run()
        assert done.returncode == REFUSED
        sentence = refusal(done)
        assert "this output was begun with other inputs or settings; what changed: the input (" in sentence
        assert "--accept-changes to keep the answers that still fit" in sentence
        assert batch.journal.read_bytes() == before
        assert not batch.out.exists()
        accepted = batch.run("--accept-changes")
        assert accepted.returncode in (0, 3), accepted.stderr
        good = [text for text in changed if text != b"not a request"]
        answered = [json.loads(text)["custom_id"] for text in batch.out.read_bytes().splitlines()]
        assert answered == [json.loads(text)["custom_id"] for text in good]
        assert batch.records()[: len(kept)] == kept
        fitting = [custom_id for custom_id in _ids(kept) if custom_id in _same(lines, good)]
        assert len(batch.records()) == len(kept) + len(good) - len(fitting), "only what does not fit runs again"

    def test_blank_lines_and_another_name_change_nothing(self, batch: Batch, tmp_path: Path) -> None:
        kept = batch.records()
        moved = tmp_path / "moved.jsonl"
        moved.write_bytes(batch.jobs.read_bytes().replace(b"\n", b"\n\n"))
        batch.jobs.unlink()
        batch.command = ("run", moved, *batch.command[2:])
        batch.finish(kept)

    @pytest.mark.parametrize("name", ["jobs.jsonl", "link", "hard"])
    def test_as_output_it_is_refused_and_stays(self, fresh: Batch, tmp_path: Path, name: str) -> None:
        (tmp_path / "link").symlink_to(fresh.jobs)
        (tmp_path / "hard").hardlink_to(fresh.jobs)
        content = fresh.jobs.read_bytes()
        done = blendrun("run", fresh.jobs, "-o", tmp_path / name, "--engine", "replay", "--overwrite")
        assert done.returncode == 73
        assert refusal(done) == f"blendrun: the output {tmp_path / name} is the input; give another -o"
        assert fresh.jobs.read_bytes() == content


def _ids(records: list[bytes]) -> list[str]:
    return [json.loads(record.partition(b"\t")[2])["custom_id"] for record in records]


def _same(old: list[bytes], new: list[bytes]) -> set[str]:
    """Ids of the lines that both have."""
    return {json.loads(text)["custom_id"] for text in set(old) & set(new)}


class TestManifest:
    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (lambda text: text.replace(b'"schema_version": 1', b'"schema_version": 0'), "schema version 0, this"),
            (lambda text: text.replace(b'"schema_version": 1', b'"schema_version": 2'), "schema version 2, this"),
            (lambda text: text[: len(text) // 2], "damaged or of another version"),
            (lambda text: b"not JSON", "damaged or of another version"),
            (lambda text: b"", "damaged or of another version"),
            (lambda text: b'{"schema_version": 1}', "missing required field"),
        ],
        ids=["older", "newer", "torn", "not JSON", "empty", "fields missing"],
    )
    def test_unreadable_it_is_refused_and_no_answer_is_lost(
        self, batch: Batch, damage: Callable[[bytes], bytes], words: str
    ) -> None:
        kept = batch.records()
        manifest = batch.state / "manifest.json"
        damaged = damage(manifest.read_bytes())
        assert damaged != manifest.read_bytes()
        manifest.write_bytes(damaged)
        done = batch.run()
        assert done.returncode == REFUSED
        assert words in refusal(done)
        assert f"{manifest} is damaged or of another version" in refusal(done)
        assert "--accept-changes to keep the answers that still fit" in refusal(done)
        assert manifest.read_bytes() == damaged
        batch.finish(kept, "--accept-changes")
        assert "finished before" in batch.run().stderr, "it was written anew"

    def test_lost_it_is_written_again(self, batch: Batch) -> None:
        kept = batch.records()
        (batch.state / "manifest.json").unlink()
        batch.finish(kept)


class TestTwoRunsAtOnce:
    def test_of_many_started_together_one_works_and_the_others_are_refused(self, fresh: Batch, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
        other = ("run", fresh.jobs, "-o", tmp_path / "link" / "out.jsonl", *fresh.command[4:])
        # An answer a second: it works until it is killed.
        slow = (*SLOW, "--engine-arg", "real_time=5")
        runs = [start(*command, *slow) for command in (fresh.command, other) for _ in range(3)]
        wait_for(lambda: sum(run.poll() is None for run in runs) == 1)
        (working,) = (run for run in runs if run.poll() is None)
        for run in runs:
            if run is not working:
                assert run.returncode == 73
                assert "another run is writing" in run.communicate()[1].splitlines()[-1]
        await_answers(fresh.journal, 2, working)
        working.kill()
        working.communicate()
        fresh.finish(fresh.records())

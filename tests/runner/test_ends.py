"""How a run ends is told by its files at every end, also where it ends before it has read a line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blendrun.endpoints.base import Usage
from blendrun.engine.base import Engine
from blendrun.engine.replay import ReplayEngine, ReplaySettings
from blendrun.errors import BlendrunError, InputInvalidError, ManifestMismatchError, OutputUnavailableError
from blendrun.jobs.job import Job
from blendrun.runner.run import execute
from blendrun.store.journal import Entry
from blendrun.store.ledger import Ledger
from blendrun.store.unkept import UnkeptAnswers
from tests.runner.runner_job import index, line, lines_of, no_engine, run, settings, write

SALT = b"salt"


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return write(tmp_path / "jobs.jsonl", *(line(f"id {row}") for row in range(4)))


def told(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"{out}.blendrun", name).read_bytes())
    return found


@pytest.mark.parametrize(("content", "name"), [(b"", "jobs.jsonl"), (b"no frame", "jobs.jsonl.zst")])
def test_of_an_input_that_cannot_be_run(tmp_path: Path, out: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputInvalidError) as ended:
        run(out, tmp_path / name, engine=no_engine)
    summary, status = told(out, "summary.json"), told(out, "status.json")
    assert (summary["status"], summary["exit_code"], summary["counts"]["total"]) == ("failed", 65, 0)
    assert summary["notes"] == [str(ended.value)]
    assert (status["status"], status["blendrun"]["exit_code"]) == ("failed", 65)
    assert run(out, write(tmp_path / "good.jsonl", line("a"))).exit_code == 0, "nothing was begun that binds"
    assert told(out, "summary.json")["exit_code"] == 0


def test_a_refusal_leaves_what_the_run_before_said(tmp_path: Path, jobs: Path, out: Path) -> None:
    run(out, jobs)
    with pytest.raises(ManifestMismatchError):
        run(out, write(tmp_path / "other.jsonl", line("x")), engine=no_engine)
    assert (told(out, "summary.json")["exit_code"], told(out, "status.json")["blendrun"]["exit_code"]) == (0, 0)


def test_a_refusal_behind_a_kill_says_that_nothing_works_any_more(tmp_path: Path, jobs: Path, out: Path) -> None:
    run(out, jobs)
    Path(f"{out}.blendrun", "summary.json").unlink()
    killed = told(out, "status.json")
    killed["blendrun"] |= {"exit_code": None, "in_flight": 2}
    Path(f"{out}.blendrun", "status.json").write_text(json.dumps(killed | {"status": "in_progress"}))
    with pytest.raises(ManifestMismatchError):
        run(out, write(tmp_path / "other.jsonl", line("x")), engine=no_engine)
    status = told(out, "status.json")
    assert (status["status"], status["blendrun"]["exit_code"], status["blendrun"]["in_flight"]) == ("failed", 78, 0)
    assert status["request_counts"]["total"] == 4, "what was counted stays"
    assert told(out, "summary.json")["exit_code"] == 78


def test_where_the_list_of_answers_without_form_cannot_be_written(tmp_path: Path, out: Path) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    jobs = write(tmp_path / "jobs.jsonl", line("a", response_format=form))
    asked = settings(out, jobs, engine="sglang")
    Path(f"{out}.blendrun", "unkept.jsonl").mkdir(parents=True)
    with pytest.raises(OutputUnavailableError, match=r"unkept\.jsonl"):
        execute(asked, lambda *_: ReplayEngine(ReplaySettings()), lambda _: None)
    assert told(out, "summary.json")["exit_code"] == told(out, "status.json")["blendrun"]["exit_code"] == 73
    Path(f"{out}.blendrun", "unkept.jsonl").rmdir()
    assert execute(asked, lambda *_: ReplayEngine(ReplaySettings()), lambda _: None).unkept == 1


class Thief(ReplayEngine):
    """Takes the state folder away while it answers."""

    folder: Path

    async def close_input(self) -> None:
        shutil.rmtree(self.folder)
        await super().close_input()


def test_a_state_folder_that_was_taken_away_is_not_said_to_hold_answers(jobs: Path, out: Path) -> None:
    def make() -> Engine:
        engine = Thief(ReplaySettings())
        engine.folder = Path(f"{out}.blendrun")
        return engine

    with pytest.raises(BlendrunError) as ended:
        run(out, jobs, engine=make)
    assert ended.value.exit_code == 73
    assert "is not there any more, and what it held is lost" in str(ended.value)
    assert run(out, jobs).exit_code == 0


def test_a_link_of_the_users_in_the_place_of_the_errors_file_stays(tmp_path: Path, jobs: Path, out: Path) -> None:
    errors = Path(f"{out}.errors.jsonl")
    errors.symlink_to("elsewhere.jsonl")
    assert run(out, jobs).errors is None
    assert (errors.is_symlink(), errors.exists()) == (True, False)
    assert run(out, jobs, resume=False, engine={"fail_every": 2}).counts.failed == 2
    assert errors.is_symlink()
    assert len(lines_of(tmp_path / "elsewhere.jsonl")) == 2
    assert run(out, jobs, resume=False).errors is None
    assert (errors.is_symlink(), errors.exists()) == (True, False)


class TestUnkept:
    """The list, which may be as long as the job."""

    @pytest.fixture
    def job(self, jobs: Path) -> Iterator[Job]:
        with index(jobs) as job:
            yield job

    def answered(self, job: Job, rows: list[int]) -> Ledger:
        ledger = Ledger(job, SALT)
        for row in rows:
            ledger.mark(row, Entry(job.key(row, SALT), True, Usage(1, 0, 1), ("stop",), None, 0, 1))
        return ledger

    def test_it_is_put_in_order_and_the_last_word_of_a_row_counts(self, job: Job, tmp_path: Path) -> None:
        listed = UnkeptAnswers(tmp_path / "unkept.jsonl")
        for row, reason in ((3, "three"), (1, "first"), (0, "zero"), (1, "again")):
            listed.add(job, row, job.key(row, SALT), f"id {row}", reason)
        assert listed.settle(job, self.answered(job, [1, 2, 3]), SALT).count == 2
        found = lines_of(tmp_path / "unkept.jsonl")
        assert [(entry["custom_id"], entry["reason"]) for entry in found] == [("id 1", "again"), ("id 3", "three")]

    def test_what_is_torn_or_endless_is_passed_over(self, job: Job, tmp_path: Path) -> None:
        listed, path = UnkeptAnswers(tmp_path / "unkept.jsonl"), tmp_path / "unkept.jsonl"
        odd = [
            b"",
            b"[]",
            b'{"id": 7}',
            b'{"id": "batch_req_zz"}',
            b'{"id": "batch_req_00"}',
            b"x" * (5 << 20),
            b"\xff",
        ]
        path.write_bytes(b"".join(each + b"\n" for each in odd))
        listed.add(job, 2, job.key(2, SALT), "id 2", "said")
        whole = path.read_bytes().splitlines()[-1]
        path.write_bytes(path.read_bytes() + whole[:-1].replace(b"said", b"torn"))
        listed.add(job, 3, job.key(3, SALT), "id 3", "behind it")
        assert listed.settle(job, self.answered(job, [0, 1, 2, 3]), SALT).count == 2
        assert [entry["reason"] for entry in lines_of(path)] == ["said", "behind it"]

    def test_nothing_is_made_where_there_is_nothing(self, job: Job, tmp_path: Path) -> None:
        assert UnkeptAnswers(tmp_path / "unkept.jsonl").settle(job, self.answered(job, [1]), SALT).count == 0
        assert not (tmp_path / "unkept.jsonl").exists()

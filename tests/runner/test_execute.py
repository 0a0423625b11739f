"""A whole run in this process: what is kept, what runs again, what is refused, and the summary."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import orjson
import pytest
from filelock import FileLock

from blendrun.engine.base import EngineInfo
from blendrun.engine.replay import ReplayEngine, ReplaySettings
from blendrun.errors import (
    BlendrunError,
    DrainedError,
    EngineUnavailableError,
    InputInvalidError,
    InputMissingError,
    InterruptedRunError,
    ManifestMismatchError,
    OutputUnavailableError,
    UsageError,
)
from blendrun.events import Event, Listener, Note, PhaseStarted, Progress, ignore
from blendrun.runner.replica import Patience
from blendrun.runner.run import execute
from blendrun.runner.stop import STOP_SIGNALS, stopping_by_exception
from blendrun.store import summary as summaries
from blendrun.store.summary import Stopwatch, Summary
from blendrun.version import __version__
from tests.runner.interrupted import Interrupted, die, signalled
from tests.runner.runner_job import line, lines_of, no_engine, run, settings, write

LINES = [line(f"id {row}", f"question {row}") for row in range(20)]


def notes(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note)]


def phases(events: list[Event]) -> list[str]:
    return [event.name for event in events if isinstance(event, PhaseStarted)]


def summary_of(out: Path) -> Summary:
    summary = summaries.read(out.with_name(f"{out.name}.blendrun") / "summary.json")
    assert summary is not None
    return summary


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return write(tmp_path / "jobs.jsonl", *LINES)


class TestResume:
    def test_finished_again_returns_what_it_returned_without_engine_or_writing(self, jobs: Path, out: Path) -> None:
        first = run(out, jobs)
        # Without the time at which it was last read.
        before = (out.stat().st_ino, out.stat().st_size, out.stat().st_mtime_ns)
        events: list[Event] = []
        assert run(out, jobs, engine=no_engine, events=events) == first
        assert notes(events) == ["finished before; nothing to do"]
        assert (out.stat().st_ino, out.stat().st_size, out.stat().st_mtime_ns) == before

    def test_a_lost_output_is_written_again_without_an_engine(self, jobs: Path, out: Path) -> None:
        run(out, jobs, engine={"fail_every": 3})
        content = out.read_bytes()
        out.unlink()
        assert run(out, jobs, engine=no_engine).exit_code == 3
        assert out.read_bytes() == content
        (out.parent / "out.jsonl.errors.jsonl").unlink()
        run(out, jobs, engine=no_engine)
        assert len(lines_of(out.parent / "out.jsonl.errors.jsonl")) == 6

    def test_after_the_engine_died_only_the_rest_runs_and_no_answer_changes(self, jobs: Path, out: Path) -> None:
        with pytest.raises(EngineUnavailableError):
            run(out, jobs, engine=lambda: Interrupted(7, die))
        assert not out.exists()
        journal = (out.parent / "out.jsonl.blendrun" / "journal").read_bytes()
        events: list[Event] = []
        run(out, jobs, events=events)
        assert "resuming: 7 of 20 requests are finished" in notes(events)
        assert (out.parent / "out.jsonl.blendrun" / "journal").read_bytes().startswith(journal)
        assert [answer["custom_id"] for answer in lines_of(out)] == [f"id {row}" for row in range(20)]

    def test_shuffled_writes_the_same_file_from_another_order(self, jobs: Path, out: Path) -> None:
        run(out, jobs, engine={"slots": 1})
        other = out.with_name("other")
        run(other, jobs, engine={"slots": 1}, order="shuffled")
        assert other.read_bytes() == out.read_bytes()
        journals = [(out.parent / f"{name}.blendrun" / "journal").read_bytes() for name in ("out.jsonl", "other")]
        assert journals[0] != journals[1]
        assert sorted(journals[0].splitlines()) == sorted(journals[1].splitlines())

    def test_a_larger_limit_goes_on_and_a_smaller_one_takes_what_is_there(self, jobs: Path, out: Path) -> None:
        run(out, jobs, limit=5)
        assert len(lines_of(out)) == 5
        events: list[Event] = []
        run(out, jobs, limit=12, events=events)
        assert "resuming: 5 of 12 requests are finished" in notes(events)
        run(out, jobs)
        assert len(lines_of(out)) == 20
        run(out, jobs, limit=3, engine=no_engine)
        assert [answer["custom_id"] for answer in lines_of(out)] == ["id 0", "id 1", "id 2"]

    def test_retry_errors_runs_the_failed_and_nothing_else(self, jobs: Path, out: Path) -> None:
        run(out, jobs, engine={"fail_every": 4})
        kept = {answer["custom_id"]: answer for answer in lines_of(out)}
        events: list[Event] = []
        assert run(out, jobs, retry_errors=True, events=events).exit_code == 0
        assert "resuming: 15 of 20 requests are finished" in notes(events)
        answers = lines_of(out)
        assert [answer["custom_id"] for answer in answers] == [f"id {row}" for row in range(20)]
        assert all(kept.get(answer["custom_id"], answer) == answer for answer in answers)

    def test_without_retry_errors_a_failure_stays(self, jobs: Path, out: Path) -> None:
        first = run(out, jobs, engine={"fail_every": 4})
        assert run(out, jobs, engine=no_engine) == first

    def test_no_resume_starts_over(self, jobs: Path, out: Path) -> None:
        run(out, jobs, engine={"fail_every": 4})
        events: list[Event] = []
        assert run(out, jobs, resume=False, events=events).exit_code == 0
        assert notes(events) == []
        assert "run" in phases(events)

    def test_no_resume_with_an_input_that_is_no_good_forgets_nothing(self, jobs: Path, out: Path) -> None:
        first = run(out, jobs)
        empty = write(jobs.with_name("empty"))
        for wrong, error in ((empty, InputInvalidError), (jobs.with_name("typo"), InputMissingError)):
            with pytest.raises(error):
                run(out, wrong, resume=False)
        assert run(out, jobs, engine=no_engine) == first

    def test_a_changed_input_is_refused_and_accepted_when_told_so(self, jobs: Path, out: Path) -> None:
        run(out, jobs)
        write(jobs, *LINES[5:], line("new"))
        with pytest.raises(ManifestMismatchError, match=r"what changed: the input"):
            run(out, jobs)
        assert len(lines_of(out)) == 20, "a refusal touches nothing"
        events: list[Event] = []
        run(out, jobs, accept_changes=True, events=events)
        assert "resuming: 15 of 16 requests are finished" in notes(events)
        assert [answer["custom_id"] for answer in lines_of(out)][-2:] == ["id 19", "new"]

    def test_another_model_answers_all_again_and_going_back_costs_nothing(self, jobs: Path, out: Path) -> None:
        run(out, jobs)
        content = out.read_bytes()
        with pytest.raises(ManifestMismatchError, match=r"what changed: the model"):
            run(out, jobs, model_identity="other")
        run(out, jobs, model_identity="other", accept_changes=True)
        assert out.read_bytes() != content
        run(out, jobs, accept_changes=True, engine=no_engine)
        assert out.read_bytes() == content

    def test_a_damaged_record_is_reported_and_its_request_runs_again(self, jobs: Path, out: Path) -> None:
        run(out, jobs)
        content = out.read_bytes()
        journal = out.parent / "out.jsonl.blendrun" / "journal"
        journal.write_bytes(journal.read_bytes().replace(b'"id 4"', b'"id X"'))
        events: list[Event] = []
        run(out, jobs, events=events)
        assert Note("1 damaged journal records passed over; their requests run again", warning=True) in events
        assert out.read_bytes() == content

    def test_no_resume_throws_old_spooled_inputs_away_and_keeps_the_new(self, tmp_path: Path, out: Path) -> None:
        packed = tmp_path / "jobs.gz"
        for text in ("one", "two", "three"):
            packed.write_bytes(gzip.compress(line(text)))
            run(out, packed, resume=False)
        assert [answer["custom_id"] for answer in lines_of(out)] == ["three"]
        assert len(list((tmp_path / "out.jsonl.blendrun" / "spool").iterdir())) == 1


class TestRefusals:
    @pytest.mark.parametrize("name", ["jobs.jsonl", "./jobs.jsonl", "link", "hard"])
    def test_the_input_as_output(self, jobs: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "link").symlink_to(jobs)
        (tmp_path / "hard").hardlink_to(jobs)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(OutputUnavailableError, match=r"the output .* is the input; give another -o"):
            run(Path(name), jobs, overwrite=True)
        assert jobs.read_bytes().count(b"\n") == 20

    def test_an_input_where_the_errors_file_would_be(self, tmp_path: Path) -> None:
        jobs = write(tmp_path / "out.errors.jsonl", *LINES)
        with pytest.raises(OutputUnavailableError, match=r"the errors file .* is the input"):
            run(tmp_path / "out", jobs, overwrite=True)
        assert jobs.read_bytes().count(b"\n") == 20

    @pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.errors.jsonl"])
    def test_a_file_that_no_run_made(self, jobs: Path, out: Path, name: str) -> None:
        foreign = out.with_name(name)
        foreign.write_text("precious")
        with pytest.raises(OutputUnavailableError, match=f"{name} exists and no run state .* --overwrite to replace"):
            run(out, jobs)
        assert foreign.read_text() == "precious"
        assert run(out, jobs, overwrite=True).exit_code == 0

    def test_an_earlier_refusal_does_not_make_a_file_ours(self, jobs: Path, out: Path) -> None:
        with pytest.raises(InputInvalidError):
            run(out, write(jobs.with_name("empty")))
        out.write_text("precious")
        with pytest.raises(OutputUnavailableError, match="no run state lies beside it"):
            run(out, jobs)

    def test_a_folder_a_pipe_or_a_name_too_long_before_any_work(self, jobs: Path, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "fifo")
        before = set(tmp_path.iterdir())
        for name in ("folder", "fifo"):
            with pytest.raises(OutputUnavailableError, match="no regular file"):
                run(tmp_path / name, jobs, overwrite=True, engine=no_engine)
        assert set(tmp_path.iterdir()) == before
        for name in ("x" * 243, "x" * 300):
            with pytest.raises(OutputUnavailableError, match="File name too long"):
                run(tmp_path / name, jobs, engine=no_engine)

    @pytest.mark.parametrize("name", ["", "/", "..", "a/..", "a\0b"])
    def test_no_file_name_at_all(self, jobs: Path, name: str) -> None:
        with pytest.raises(UsageError, match="is no file name; give one with -o"):
            run(Path(name), jobs)

    def test_a_folder_that_cannot_be_made(self, jobs: Path) -> None:
        with pytest.raises(OutputUnavailableError, match="Not a directory; give an output in a folder"):
            run(jobs / "out", jobs)

    def test_a_run_that_is_held_by_another(self, jobs: Path, out: Path) -> None:
        state = out.with_name("out.jsonl.blendrun")
        state.mkdir()
        with (
            FileLock(state / "lock"),
            pytest.raises(OutputUnavailableError, match=r"another run is writing .*; wait for it, or give another -o"),
        ):
            run(out, jobs)
        assert run(out, jobs).exit_code == 0

    def test_a_mistyped_input_leaves_nothing_behind(self, tmp_path: Path) -> None:
        with pytest.raises(InputMissingError, match=r"cannot read .*typo: no such file; check the path"):
            run(tmp_path / "out", tmp_path / "typo")
        assert list(tmp_path.iterdir()) == []

    def test_a_damaged_manifest(self, jobs: Path, out: Path) -> None:
        run(out, jobs)
        (out.parent / "out.jsonl.blendrun" / "manifest.json").write_bytes(b"{")
        with pytest.raises(ManifestMismatchError, match="use --no-resume to start over"):
            run(out, jobs)
        assert run(out, jobs, resume=False).exit_code == 0


class TestAnInputThatGoesAway:
    def test_deleted_or_replaced_by_rename_while_running_it_is_read_on(self, jobs: Path, out: Path) -> None:
        assert run(out, jobs, engine=lambda: Interrupted(0, jobs.unlink)).exit_code == 0
        assert len(lines_of(out)) == 20

    def test_rewritten_in_place_it_ends_the_run_and_what_was_answered_stays(self, tmp_path: Path, out: Path) -> None:
        lines = [line(f"id {row}") for row in range(400)]
        jobs = write(tmp_path / "jobs", *lines)

        def rewrite() -> None:
            write(jobs, *reversed(lines))

        with pytest.raises(InputInvalidError, match="changed while the job was running"):
            run(out, jobs, engine=lambda: Interrupted(50, rewrite))
        assert not out.exists()
        summary = summary_of(out)
        assert (summary.status, summary.exit_code) == ("failed", 65)
        write(jobs, *lines)
        assert run(out, jobs).exit_code == 0
        assert len(lines_of(out)) == 400


@contextmanager
def handlers_unchanged() -> Iterator[None]:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    yield
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


class TestSignals:
    @pytest.mark.parametrize(
        ("number", "error", "code"),
        [
            (signal.SIGTERM, DrainedError, 75),
            (signal.SIGUSR1, DrainedError, 75),
            (signal.SIGINT, InterruptedRunError, 130),
        ],
    )
    @pytest.mark.parametrize("dies", [False, True], ids=["engine lives", "engine dies of it too"])
    def test_what_is_finished_stays_and_the_code_says_how_to_go_on(
        self, jobs: Path, out: Path, number: int, error: type[BlendrunError], code: int, dies: bool
    ) -> None:
        with (
            handlers_unchanged(),
            pytest.raises(error, match=r"\d+ requests are left; the same command resumes") as caught,
        ):
            run(out, jobs, engine=lambda: Interrupted(5, signalled(number, dies=dies)))
        assert caught.value.exit_code == code
        summary = summary_of(out)
        assert (summary.status, summary.exit_code) == ("drained", code)
        assert summary.counts.total == 20
        assert 5 <= summary.counts.completed < 20
        assert not out.exists()
        assert run(out, jobs).counts.completed == 20

    def test_what_is_in_flight_is_finished_within_the_time_given(self, tmp_path: Path, out: Path) -> None:
        jobs = write(tmp_path / "many", *(line(f"id {row}") for row in range(400)))
        with pytest.raises(DrainedError):
            run(
                out,
                jobs,
                engine=lambda: Interrupted(5, signalled(signal.SIGTERM)),
                patience=Patience(restarts=0, drain=20.0),
            )
        completed = summary_of(out).counts.completed
        assert 100 < completed < 400, "those submitted are finished, no further one is"

    def test_while_the_engine_loads_nothing_is_waited_for(self, jobs: Path, out: Path) -> None:
        class NeverUp(ReplayEngine):
            async def start(self, listener: Listener) -> EngineInfo:
                asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGTERM)
                await asyncio.sleep(3600)
                raise AssertionError("unreachable")

        with pytest.raises(DrainedError, match="20 requests are left"):
            run(out, jobs, engine=lambda: NeverUp(ReplaySettings()), patience=Patience(restarts=0, drain=3600.0))
        assert summary_of(out).platform is None
        assert run(out, jobs).exit_code == 0

    def test_a_signal_that_comes_after_the_last_answer_stops_nothing(self, jobs: Path, out: Path) -> None:
        engine = Interrupted(19, signalled(signal.SIGTERM))
        assert run(out, jobs, engine=lambda: engine, patience=Patience(restarts=0, drain=20.0)).exit_code == 0

    @pytest.mark.parametrize("phase", ["index", "write"])
    def test_while_reading_or_writing_it_ends_at_once_and_goes_on_next_time(
        self, jobs: Path, out: Path, phase: str
    ) -> None:
        class Listener(list[Event]):
            def append(self, event: Event) -> None:
                if isinstance(event, PhaseStarted) and event.name == phase:
                    os.kill(os.getpid(), signal.SIGTERM)

        with (
            handlers_unchanged(),
            pytest.raises(DrainedError, match="stopped by SIGTERM; the same command goes on from here"),
            stopping_by_exception(),
        ):
            run(out, jobs, events=Listener())
        assert not out.exists()
        assert [path.name for path in out.parent.glob(".*")] == []
        if phase == "write":
            assert summary_of(out).status == "drained"
            assert summary_of(out).counts.completed == 20
        run(out, jobs)
        assert len(lines_of(out)) == 20


class TestSummary:
    def test_fields(self, jobs: Path, out: Path) -> None:
        write(jobs, *LINES, b"no", line("id 0"))
        events: list[Event] = []
        run(out, jobs, engine={"fail_every": 10}, events=events)
        assert phases(events) == ["index", "load", "run", "write"]
        found = orjson.loads((out.parent / "out.jsonl.blendrun" / "summary.json").read_bytes())
        assert found["schema_version"] == 1
        assert (found["status"], found["exit_code"]) == ("completed", 3)
        assert found["counts"] == {"total": 22, "completed": 18, "failed": 4}
        answers = [answer["response"]["body"]["usage"] for answer in lines_of(out)]
        assert found["tokens"] == {
            "prompt": sum(usage["prompt_tokens"] for usage in answers),
            "cached": 0,
            "output": sum(usage["completion_tokens"] for usage in answers),
        }
        assert list(found["seconds"]) == ["index", "load", "run", "write", "wall"]
        assert sum(found["seconds"].values()) <= 2.01 * found["seconds"]["wall"]
        assert set(found["throughput"]) == {"input_throughput", "output_throughput", "total_throughput"}
        assert found["versions"] == {"blendrun": __version__, "replay": __version__}
        assert found["error_codes"] == {"engine_error": 2, "invalid_json": 1, "duplicate_custom_id": 1}
        assert found["finish_reasons"] == {"stop": 18}
        assert found["inputs"] == [str(jobs)]
        assert (found["output"], found["errors"]) == (str(out), f"{out}.errors.jsonl")
        assert (found["engine"], found["platform"], found["order"]) == ("replay", "cpu", "given")
        assert (found["devices"], found["cost"], found["resumed"]) == (1, None, False)

    def test_what_it_cost_is_its_wall_time_on_all_devices_at_the_price(self, jobs: Path, out: Path) -> None:
        with pytest.raises(DrainedError):
            run(out, jobs, engine=lambda: Interrupted(5, signalled(signal.SIGTERM)), devices=4, gpu_hour=900.0)
        stopped = summary_of(out)
        assert stopped.cost is not None and not stopped.resumed
        assert stopped.cost.amount == pytest.approx(stopped.seconds["wall"])
        rest = run(out, jobs, devices=4)
        assert (rest.cost, rest.devices, rest.resumed) == (None, 4, True)
        later = run(out, jobs, gpu_hour=1800.0)
        assert later.cost is not None, "of a run that is finished: of the devices that it had"
        assert later.cost.amount == pytest.approx(2 * rest.seconds["wall"])

    def test_time_is_counted_from_the_command_on(self, jobs: Path, out: Path) -> None:
        stopwatch = Stopwatch(time.monotonic() - 40.0)
        with stopwatch.phase("model"):
            pass
        execute(settings(out, jobs), lambda *_: ReplayEngine(ReplaySettings()), ignore, stopwatch)
        seconds = summary_of(out).seconds
        assert list(seconds)[:3] == ["start", "model", "index"]
        assert seconds["start"] >= 40.0 and seconds["wall"] >= sum(seconds.values()) - seconds["wall"] - 0.01
        status = orjson.loads((out.parent / "out.jsonl.blendrun" / "status.json").read_bytes())
        assert status["blendrun"]["updated_at"] - status["blendrun"]["begun_at"] >= 40.0
        assert status["completed_at"] - status["created_at"] >= 40

    def test_after_a_failure(self, jobs: Path, out: Path) -> None:
        with pytest.raises(EngineUnavailableError):
            run(out, jobs, engine=lambda: Interrupted(7, die))
        summary = summary_of(out)
        assert (summary.status, summary.exit_code) == ("failed", 69)
        assert (summary.counts.completed, summary.counts.failed) == (7, 0)
        assert "write" not in summary.seconds

    def test_a_resumed_run_counts_the_tokens_of_all_its_invocations(self, jobs: Path, out: Path) -> None:
        with pytest.raises(EngineUnavailableError):
            run(out, jobs, engine=lambda: Interrupted(7, die))
        part = summary_of(out).tokens
        whole = run(out, jobs).tokens
        other = run(out.with_name("at once"), jobs).tokens
        assert whole == other
        assert 0 < part.output < whole.output

    def test_one_of_an_earlier_run_is_gone_while_the_next_runs(self, jobs: Path, out: Path) -> None:
        run(out, jobs, limit=3)
        path = out.parent / "out.jsonl.blendrun" / "summary.json"
        seen: list[bool] = []
        run(out, jobs, engine=lambda: Interrupted(0, lambda: seen.append(path.exists())))
        assert seen == [False]

    def test_names_that_are_not_utf8_are_written_with_a_mark_in_their_place(self, tmp_path: Path) -> None:
        jobs = write(tmp_path / os.fsdecode(b"\xffjobs"), *LINES)
        summary = run(tmp_path / os.fsdecode(b"\xffout"), jobs)
        assert summary.inputs == (f"{tmp_path}/\ufffdjobs",)
        assert summary.output == f"{tmp_path}/\ufffdout"
        assert len(lines_of(tmp_path / os.fsdecode(b"\xffout"))) == 20


def test_progress_counts_up_to_all_lines_and_ends_there(jobs: Path, out: Path) -> None:
    write(jobs, *LINES, b"no")
    events: list[Event] = []
    run(out, jobs, engine={"fail_every": 10}, events=events)
    steps = [event for event in events if isinstance(event, Progress) and event.unit == "requests"]
    assert [step.done for step in steps] == list(range(2, 22)), "a refused line is done from the start"
    assert {step.total for step in steps} == {21}
    assert (steps[-1].failed, steps[-1].in_flight) == (3, 0)


def test_what_an_engine_wants_known_is_a_warning(jobs: Path, out: Path) -> None:
    class Warns(ReplayEngine):
        async def start(self, listener: Listener) -> EngineInfo:
            return msgspec.structs.replace(await super().start(listener), notes=("a hook did not take",))

    events: list[Event] = []
    summary = run(out, jobs, engine=lambda: Warns(ReplaySettings()), events=events)
    assert Note("a hook did not take", warning=True) in events
    assert summary.notes == ("a hook did not take",)


def test_state_and_journal_are_private(jobs: Path, out: Path) -> None:
    run(out, jobs)
    state = out.with_name("out.jsonl.blendrun")
    assert state.stat().st_mode & 0o777 == 0o700

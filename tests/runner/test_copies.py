"""Equal requests are asked once: counts, lines and marks, whatever ends a run in between."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.engine.base import Engine, Result, WorkItem
from blendrun.engine.replay import ReplayEngine, ReplaySettings
from blendrun.errors import EngineUnavailableError, ErrorCode, InputInvalidError, LineError
from blendrun.events import Event, Progress, ignore
from blendrun.jobs.same import Sameness
from blendrun.names import Dedupe
from blendrun.runner.copies import with_copies
from blendrun.runner.run import execute
from blendrun.store.failures import ErrorLimit
from blendrun.store.status import read as read_status
from blendrun.store.summary import Summary
from blendrun.tokens.check import RefusedPrompts
from tests.runner.runner_job import index, line, lines_of, no_engine, run, settings, write

SAME = Sameness()


class Counting(ReplayEngine):
    """Says which rows it was asked for, and dies, where wanted, when so many results are out."""

    def __init__(self, asked: list[int], dies_at: int | None = None, **settings: Any) -> None:
        super().__init__(ReplaySettings(slots=1, **settings))
        self._asked, self._dies_at = asked, dies_at

    async def submit(self, item: WorkItem) -> None:
        self._asked.append(item.row)
        await super().submit(item)

    async def results(self) -> AsyncIterator[Result]:
        number = 0
        async for result in super().results():
            if number == self._dies_at:
                raise EngineUnavailableError("the engine died")
            number += 1
            yield result


def job(path: Path, rows: int = 100, copies: int = 40, **body: Any) -> Path:
    """Of which so many in a hundred ask what another one asks."""
    own = [row if row % 100 >= copies else row - row % 100 + copies + row % 7 for row in range(rows)]
    return write(path, *(line(f"id {row}", f"question {asks}", temperature=0, **body) for row, asks in enumerate(own)))


def counted(out: Path, jobs: Path, dies_at: int | None = None, **changes: Any) -> tuple[Summary, list[int]]:
    asked: list[int] = []
    engine = {name: changes.pop(name) for name in ("fail_every",) if name in changes}
    return run(out, jobs, engine=lambda: Counting(asked, dies_at, **engine), **{"same": SAME, **changes}), asked


def looked_at(out: Path, jobs: Path, engine: Engine) -> Summary:
    """Of an engine whose answers are held against what was promised of them."""
    return execute(settings(out, jobs, engine="sglang", same=SAME), lambda *_: engine, ignore)


def is_copy(answer: dict[str, Any]) -> bool:
    return bool(answer["id"].endswith("_copy"))


def answers_by_text(out: Path, jobs: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for request, answer in zip(lines_of(jobs), lines_of(out), strict=True):
        assert request["custom_id"] == answer["custom_id"]
        found.setdefault(request["body"]["messages"][0]["content"], []).append(answer)
    return found


class TestCounts:
    def test_forty_copies_in_a_hundred_make_sixty_requests(self, tmp_path: Path, out: Path) -> None:
        jobs = job(tmp_path / "jobs.jsonl", 1000)
        events: list[Event] = []
        summary, asked = counted(out, jobs, events=events)
        assert len(asked) == len(set(asked)) == 600
        assert len(lines_of(out.parent / "out.jsonl.blendrun" / "records.jsonl")) == 600
        assert summary.counts == type(summary.counts)(1000, 1000, 0)
        assert (summary.taken.copies, summary.taken.cache) == (400, 0)
        assert sum(map(is_copy, lines_of(out))) == 400
        assert [event for event in events if isinstance(event, Progress)][-1].copies > 0
        status = read_status(out.parent / "out.jsonl.blendrun" / "status.json")
        assert status is not None
        assert (status.blendrun.copies, status.request_counts.completed) == (400, 1000)

    def test_tokens_are_those_of_the_engine_and_a_copys_usage_says_what_the_answer_took(
        self, tmp_path: Path, out: Path
    ) -> None:
        summary, _ = counted(out, job(tmp_path / "jobs.jsonl"))
        usages = [(answer["response"]["body"]["usage"], is_copy(answer)) for answer in lines_of(out)]
        assert summary.tokens.output == sum(usage["completion_tokens"] for usage, copy in usages if not copy)
        assert all(usage["completion_tokens"] for usage, copy in usages if copy)

    def test_a_copy_has_its_own_id_and_names_the_request_that_was_asked(self, tmp_path: Path, out: Path) -> None:
        jobs = job(tmp_path / "jobs.jsonl")
        counted(out, jobs)
        assert len({answer["id"] for answer in lines_of(out)}) == 100
        for same in answers_by_text(out, jobs).values():
            [asked] = [answer for answer in same if not is_copy(answer)]
            # The first in the input.
            assert asked is same[0]
            for answer in same:
                assert answer["response"]["request_id"] == asked["id"].replace("batch_req_", "req_")
                assert answer["response"]["body"] == asked["response"]["body"]

    def test_without_it_all_are_asked_and_the_answers_are_the_same(self, tmp_path: Path, out: Path) -> None:
        jobs = job(tmp_path / "jobs.jsonl")
        counted(out, jobs)
        other = out.with_name("other.jsonl")
        _, asked = counted(other, jobs, same=None)
        assert len(asked) == 100
        bodies = [[answer["response"]["body"] for answer in lines_of(path)] for path in (out, other)]
        assert bodies[0] == bodies[1]

    def test_a_drawn_answer_is_shared_only_where_that_is_asked_for(self, tmp_path: Path, out: Path) -> None:
        jobs = write(tmp_path / "jobs.jsonl", *(line(f"id {row}", temperature=1) for row in range(4)))
        assert counted(out, jobs)[1] == [0, 1, 2, 3]
        assert counted(out.with_name("on"), jobs, same=Sameness(Dedupe.ON))[1] == [0]


class TestResume:
    @pytest.mark.parametrize("at", [0, 1, 30, 59])
    def test_after_a_death_only_what_is_distinct_and_unanswered_is_asked(
        self, tmp_path: Path, out: Path, at: int
    ) -> None:
        jobs = job(tmp_path / "jobs.jsonl")
        with pytest.raises(EngineUnavailableError):
            counted(out, jobs, dies_at=at)
        summary, asked = counted(out, jobs)
        assert len(asked) == 60 - at
        assert (summary.counts.completed, summary.taken.copies) == (100, 40)
        whole = out.with_name("whole.jsonl")
        counted(whole, jobs)
        assert whole.read_bytes() == out.read_bytes()

    def test_copies_that_a_kill_kept_from_their_lines_get_them_without_an_engine(
        self, tmp_path: Path, out: Path
    ) -> None:
        jobs = job(tmp_path / "jobs.jsonl")
        counted(out, jobs)
        whole, state = out.read_bytes(), out.parent / "out.jsonl.blendrun"
        records = (state / "journal").read_bytes().splitlines(keepends=True)
        (state / "journal").write_bytes(b"".join(each for each in records if b'"taken":"copy"' not in each))
        (state / "summary.json").unlink()
        out.unlink()
        summary = run(out, jobs, engine=no_engine, same=SAME)
        assert summary.taken.copies == 40
        assert out.read_bytes() == whole

    def test_what_was_answered_without_it_stays_and_any_of_the_equal_ones_will_do(
        self, tmp_path: Path, out: Path
    ) -> None:
        jobs = write(tmp_path / "jobs.jsonl", *(line(f"id {row}", temperature=0) for row in range(6)))
        with pytest.raises(EngineUnavailableError):
            # The last ones come first.
            run(out, jobs, engine=lambda: Counting([], 2), order="shuffled")
        assert counted(out, jobs)[1] == []
        assert sum(map(is_copy, lines_of(out))) == 4

    def test_a_larger_limit_brings_copies_of_what_is_answered(self, tmp_path: Path, out: Path) -> None:
        jobs = job(tmp_path / "jobs.jsonl", 200, copies=50)
        assert counted(out, jobs, limit=60)[0].counts.total == 60
        _, asked = counted(out, jobs, limit=100)
        assert all(row >= 60 for row in asked)
        summary, _ = counted(out, jobs)
        assert summary.taken.copies == 100

    def test_a_finished_job_is_finished(self, tmp_path: Path, out: Path) -> None:
        jobs = job(tmp_path / "jobs.jsonl")
        first, _ = counted(out, jobs)
        assert run(out, jobs, engine=no_engine, same=SAME) == first

    @given(st.integers(0, 100_000), st.booleans())
    def test_a_journal_cut_anywhere_ends_in_the_same_files(self, cut: int, fails: bool) -> None:
        """As kill -9 leaves it: of any length, no summary, no output."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            jobs, out = job(folder / "jobs.jsonl", 30, copies=12), folder / "out.jsonl"
            given = {"fail_every": 4} if fails else {}
            counted(out, jobs, **given)
            errors, state = folder / "out.jsonl.errors.jsonl", folder / "out.jsonl.blendrun"
            before = out.read_bytes(), errors.read_bytes() if fails else b""
            journal = (state / "journal").read_bytes()
            (state / "journal").write_bytes(journal[: cut % (len(journal) + 1)])
            (state / "summary.json").unlink()
            out.unlink()
            counted(out, jobs, **given)
            assert (out.read_bytes(), errors.read_bytes() if fails else b"") == before


class TestErrors:
    def test_an_error_is_that_of_all_who_ask_the_same_and_retried_once(self, tmp_path: Path, out: Path) -> None:
        # The second row fails, and its copies are the fourth and the fifth.
        texts = ("a", "b", "c", "b", "b")
        jobs = write(
            tmp_path / "jobs.jsonl", *(line(f"id {row}", text, temperature=0) for row, text in enumerate(texts))
        )
        summary, asked = counted(out, jobs, fail_every=2)
        assert asked == [0, 1, 2]
        assert (summary.counts.completed, summary.counts.failed) == (2, 3)
        errors = lines_of(out.parent / "out.jsonl.errors.jsonl")
        assert [(error["custom_id"], error["error"]["line"]) for error in errors] == [
            ("id 1", 2),
            ("id 3", 4),
            ("id 4", 5),
        ]
        assert len({error["error"]["message"] for error in errors}) == 1
        assert [is_copy(error) for error in errors] == [False, True, True]
        assert counted(out, jobs)[1] == []
        summary, asked = counted(out, jobs, retry_errors=True)
        assert (asked, summary.counts.failed, summary.taken.copies) == ([1], 0, 2)

    def test_failed_copies_count_where_lines_may_fail(self, tmp_path: Path, out: Path) -> None:
        texts = ("a", "b", *("b" for _ in range(9)))
        jobs = write(
            tmp_path / "jobs.jsonl", *(line(f"id {row}", text, temperature=0) for row, text in enumerate(texts))
        )
        summary, _ = counted(out, jobs, fail_every=2, max_errors=ErrorLimit(5))
        assert (summary.exit_code, summary.counts.failed) == (4, 10)

    def test_strict_lists_a_bad_request_with_its_copies(self, tmp_path: Path, out: Path) -> None:
        jobs = job(tmp_path / "jobs.jsonl", 10, copies=0)
        jobs.write_bytes(jobs.read_bytes() + line("again", "question 3", temperature=0) + b"\n")

        def check(found: Any, _: Any) -> RefusedPrompts:
            def error(row: int) -> LineError:
                return LineError(ErrorCode.CONTEXT_LENGTH_EXCEEDED, "too long", found.request(row).custom_id)

            return RefusedPrompts(found.distinct[3:4], error)

        with pytest.raises(InputInvalidError, match="2 of 11 lines"):
            run(out, jobs, engine=no_engine, same=SAME, strict=True, check=check)
        errors = lines_of(out.parent / "out.jsonl.errors.jsonl")
        assert [error["custom_id"] for error in errors] == ["id 3", "again"]

    def test_nothing_refused_is_nothing_refused(self, tmp_path: Path) -> None:
        with index(job(tmp_path / "jobs.jsonl", 5)) as found:
            nothing = RefusedPrompts(found.accepted[:0], lambda row: LineError(ErrorCode.INVALID_REQUEST, str(row)))
            assert len(with_copies(nothing, found).rows) == 0


def test_a_custom_id_that_looks_like_a_part_of_the_line_is_only_an_id(tmp_path: Path, out: Path) -> None:
    odd = ['","response":{"status_code":1', 'x,"result":', "\\", 'a","response":null']
    jobs = write(tmp_path / "jobs.jsonl", *(line(name, temperature=0) for name in odd))
    counted(out, jobs)
    assert [answer["custom_id"] for answer in lines_of(out)] == odd
    assert len({orjson.dumps(answer["response"]) for answer in lines_of(out)}) == 1


def test_lines_of_anthropics_batches_share_too(tmp_path: Path, out: Path) -> None:
    params = {"model": "m", "max_tokens": 5, "temperature": 0, "messages": [{"role": "user", "content": "Hi"}]}
    lines = [orjson.dumps({"custom_id": name, "params": params}) for name in "abc"]
    # The same question in the form of a request is answered in another one.
    lines.append(orjson.dumps({"custom_id": "d", "url": "/v1/messages", "body": params}))
    jobs = write(tmp_path / "jobs.jsonl", *lines)
    _, asked = counted(out, jobs)
    assert asked == [0, 3]
    answers = lines_of(out)
    assert [answer["custom_id"] for answer in answers] == ["a", "b", "c", "d"]
    assert [is_copy(answer) for answer in answers] == [False, True, True, False]
    assert answers[1]["result"] == answers[0]["result"]


def test_answers_that_break_their_form_are_listed_for_copies_too(tmp_path: Path, out: Path) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    texts = ("a", "b", "a", "a")
    jobs = write(
        tmp_path / "jobs.jsonl",
        *(line(f"id {row}", text, temperature=0, response_format=form) for row, text in enumerate(texts)),
    )
    asked: list[int] = []
    summary = looked_at(out, jobs, Counting(asked))
    assert asked == [0, 1]
    listed = lines_of(out.parent / "out.jsonl.blendrun" / "unkept.jsonl")
    assert summary.unkept == 4
    assert [(entry["custom_id"], entry["line"]) for entry in listed] == [(f"id {row}", row + 1) for row in range(4)]
    assert [entry["id"] for entry in listed] == [answer["id"] for answer in lines_of(out)]
    assert looked_at(out, jobs, Counting(asked, 0)).unkept == 4


def test_very_many_copies_of_one_line_leave_the_engine_its_turns(tmp_path: Path, out: Path) -> None:
    lines = [line(f"id {row}", "N/A" if row % 50 else f"question {row}", temperature=0) for row in range(2000)]
    summary, asked = counted(out, write(tmp_path / "jobs.jsonl", *lines))
    assert len(asked) == 41
    assert summary.taken.copies == 2000 - 41
    assert len(lines_of(out)) == 2000

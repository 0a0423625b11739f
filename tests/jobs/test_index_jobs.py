"""index_jobs: every non-blank line is one row, accepted or rejected, and can be read again."""

from __future__ import annotations

import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import blendrun.jobs.lines as scanning
from blendrun.errors import ErrorCode, InputInvalidError, InputMissingError, LineError, UsageError
from blendrun.events import Event, Progress
from blendrun.jobs.index import index_jobs
from blendrun.jobs.job import Job
from blendrun.jobs.line import parse_line, request_key
from blendrun.jobs.source import open_sources
from tests.jobs.job_lines import CHAT, body, index, line, write


def errors(job: Job) -> dict[int, ErrorCode]:
    """Line number to error code, of every rejected row."""
    return {job.where(row)[1]: job.error(row).code for row in np.flatnonzero(job.rejected)}


def test_columns_say_where_each_line_is_and_what_it_asks_for(tmp_path: Path) -> None:
    first = line("a", body=body(max_tokens=7, n=3))
    second = line("b", url="/v1/completions", body={"prompt": "x"})
    job = index(write(tmp_path / "one", first, second), write(tmp_path / "two", line("c")))
    assert len(job) == 3
    assert job.source.tolist() == [0, 0, 1]
    assert job.offset.tolist() == [0, len(first) + 1, 0]
    assert job.length.tolist() == [len(first), len(second), len(line("c"))]
    assert job.line_number.tolist() == [1, 2, 1]
    assert job.endpoint.tolist() == [0, 1, 0]
    assert job.max_new_tokens.tolist() == [7, 0, 0]
    assert job.choices.tolist() == [3, 1, 1]
    assert job.accepted.tolist() == [0, 1, 2]
    assert job.duplicate_of.tolist() == [-1, -1, -1]
    assert job.where(2) == (str(tmp_path / "two"), 1)
    columns: list[NDArray[Any]] = [job.source, job.offset, job.length, job.endpoint, job.content]
    columns += [job.max_new_tokens, job.choices]
    assert [column.dtype.str for column in columns] == ["<u2", "<i8", "<i8", "|i1", "|u1", "<i4", "<i2"]
    assert job.content.shape == (3, 16)


def test_a_row_can_be_read_again_and_its_key_is_that_of_the_request(tmp_path: Path) -> None:
    job = index(write(tmp_path / "a", line("a"), line("b", body=body("x"))))
    assert job.read_raw(1) == line("b", body=body("x"))
    assert job.request(1) == parse_line(line("b", body=body("x")))
    assert job.key(1, b"salt") == request_key("b", CHAT, body("x"), b"salt")


def test_a_bound_beyond_31_bits_is_kept_as_the_largest(tmp_path: Path) -> None:
    job = index(write(tmp_path / "a", line(body=body(max_tokens=2**40))))
    assert job.max_new_tokens.tolist() == [2**31 - 1]


@pytest.mark.parametrize("last", [b"", b"\n", b"\n\n  \n"])
def test_blank_lines_are_counted_but_are_no_rows(tmp_path: Path, last: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\n \t \n" + line("a") + b"\r\n\r\n\x0b\n" + line("b") + last)
    job = index(path)
    assert job.line_number.tolist() == [3, 6]
    assert not job.rejected.any()


def test_a_byte_order_mark_is_skipped_at_the_start_only(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    job = index(write(tmp_path / "a", mark + line("a"), mark + line("b")))
    assert job.offset[0] == len(mark)
    assert errors(job) == {2: ErrorCode.INVALID_JSON}


def test_each_bad_line_is_one_rejected_row_and_costs_no_other_line_anything(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a",
        line("good-1"),
        b"hello",
        b'{"custom_id": "\xff"}',
        line(...),
        line("good-1", body=body("another")),
        line("url", url="/v1/nothing"),
        line("slip", body=body(max_token=3)),
        b"[" * 100_000 + b"]" * 100_000,
        b"[1]",
        b'{"custom_id": 1e999}',
        b'{"custom_id": NaN}',
        line("long", body=body("x" * 5000)),
        line("good-2"),
    )
    job = index(path, max_line_bytes=300_000)
    bad_json = dict.fromkeys([2, 3, 8, 10, 11], ErrorCode.INVALID_JSON)
    bad_request = dict.fromkeys([4, 6, 7, 9], ErrorCode.INVALID_REQUEST)
    assert errors(job) == bad_json | bad_request | {5: ErrorCode.DUPLICATE_CUSTOM_ID}
    assert [job.request(row).custom_id for row in job.accepted] == ["good-1", "long", "good-2"]
    assert job.error(5).custom_id == "url"
    assert job.endpoint.tolist() == [0, -1, -1, -1, 0, -1, -1, -1, -1, -1, -1, 0, 0]


def test_a_line_over_64_mib_is_rejected_and_never_held(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.write(line("a") + b"\n" + b'{"custom_id": "')
        for _ in range(70):
            file.write(b"x" * 2**20)
        file.write(b'"}\n' + line("b") + b"\n")
    tracemalloc.start()
    try:
        job = index(path)
        error = job.error(1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert job.accepted.tolist() == [0, 2]
    assert error.message == "the line has 73,400,337 bytes; at most 67,108,864 are read"
    assert job.request(2).custom_id == "b"
    assert peak < 24 * 2**20


def test_an_over_long_blank_line_is_still_blank(tmp_path: Path) -> None:
    job = index(write(tmp_path / "a", b" " * 999, line("a"), b" " * 999 + b"x", b" " * 999), max_line_bytes=500)
    assert job.line_number.tolist() == [2, 3]


def test_limit_takes_the_first_lines_of_the_whole_job_and_reads_no_further(tmp_path: Path) -> None:
    one = write(tmp_path / "one", line("a"), b"", b"bad")
    two = write(tmp_path / "two", line("b"), line("c"))
    sources = open_sources([one, two], tmp_path)
    os.truncate(two, len(line("b")) + 1)
    job = index_jobs(sources, limit=3)
    assert [job.where(row) for row in range(len(job))] == [(str(one), 1), (str(one), 3), (str(two), 1)]
    with pytest.raises(InputInvalidError, match="two became shorter"):
        index_jobs(sources)


def test_select_is_the_first_rows(tmp_path: Path) -> None:
    job = index(write(tmp_path / "a", line("a"), line("b"), line("c")))
    assert [len(job.select(limit)) for limit in (0, 2, 99)] == [0, 2, 3]
    assert job.select(2).request(1).custom_id == "b"


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf", b" ", b"\xef\xbb\xbf\n"])
def test_an_input_without_lines_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "empty.jsonl").write_bytes(data)
    with pytest.raises(InputInvalidError, match=r"empty\.jsonl holds no request"):
        index(tmp_path / "empty.jsonl")


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a", line())
    with pytest.raises(UsageError, match="limit"):
        index(path, limit=0)
    with pytest.raises(UsageError, match="/v1/chat/completions"):
        index(path, default_url="/v1/nothing")


def test_a_default_url_also_counts_when_a_row_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a", line("a", url=...), line("a", url=...))
    job = index(path, default_url=CHAT)
    assert job.request(0).endpoint.url == CHAT
    assert job.error(1).code is ErrorCode.DUPLICATE_CUSTOM_ID
    assert index(path).rejected.all()


def test_progress_ends_at_all_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blendrun.jobs.index.BLOCK_BYTES", 300)
    paths = [write(tmp_path / name, *(line(f"{name}{n}") for n in range(20))) for name in "abc"]
    total = sum(path.stat().st_size for path in paths)
    events: list[Event] = []
    index(*paths, listener=events.append)
    seen = [event.done for event in events if isinstance(event, Progress)]
    assert events == [Progress(done, total, "bytes") for done in sorted(seen)]
    assert seen[-1] == total
    assert 9 < len(seen) < 60


class TestAFileThatChanges:
    def test_in_place_is_noticed_when_its_line_is_read_again(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a", line("a"), line("b"), b"bad", line("b"))
        job = index(path)
        data = path.read_bytes()
        path.write_bytes(data.replace(b'"b"', b'"c"').replace(b"bad", b"BAD"))
        assert job.request(0).custom_id == "a"
        for read in (lambda: job.request(1), lambda: job.error(2), lambda: job.error(3)):
            with pytest.raises(InputInvalidError, match="changed while the job was running: line"):
                read()
        path.write_bytes(b"")
        with pytest.raises(InputInvalidError, match="changed while"):
            job.request(0)

    def test_by_rename_goes_on_being_read_as_it_was(self, tmp_path: Path) -> None:
        job = index(write(tmp_path / "a", line("a")))
        write(tmp_path / "new", line("b")).rename(tmp_path / "a")
        assert job.request(0).custom_id == "a"

    def test_after_close_files_are_opened_anew(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a", line("a"))
        with index(path) as job:
            pass
        assert job.request(0).custom_id == "a"
        path.unlink()
        with pytest.raises(InputMissingError, match="was it moved"):
            job.request(0)


def test_of_names_that_lines_bring_little_is_kept(tmp_path: Path) -> None:
    named = [line(str(row), body=body(model=f"{row} " + "x" * 3000)) for row in range(1200)]
    job = index(write(tmp_path / "jobs", *named, line("again", body=body(model="0 " + "x" * 9000))))
    assert len(job) == 1201
    assert len(job.models) == 1000
    assert max(map(len, job.models)) == 256
    assert job.models[f"0 {'x' * 253}…"] == 2


def test_asking_for_the_wrong_one_of_request_and_error_is_a_mistake(tmp_path: Path) -> None:
    job = index(write(tmp_path / "a", line("a"), b"bad"))
    with pytest.raises(ValueError, match="rejected"):
        job.request(1)
    with pytest.raises(ValueError, match="accepted"):
        job.error(0)


def test_more_sources_than_descriptors_can_be_held(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{number:03}", line(str(number))) for number in range(300)]
    job = index(*paths)
    assert [job.request(row).custom_id for row in (0, 255, 256, 299)] == ["0", "255", "256", "299"]


some_line = st.one_of(
    st.integers(0, 9).map(lambda name: line(f"id {name}")),
    st.sampled_from([b"", b" ", b"\r", b"bad", b"[]", line(...), b"\xff", line("é" * 40), b"x" * 400]),
    st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"")),
)


@given(st.lists(some_line, min_size=1), st.booleans(), st.sampled_from([1, 7, 64, 4096]))
def test_rows_are_the_non_blank_lines_and_each_is_accepted_or_rejected(
    lines: list[bytes], newline_at_end: bool, block: int
) -> None:
    # One that is meant to be a request: a file without any is refused whole.
    data = b'{"body":1}\n' + b"\n".join(lines) + b"\n" * newline_at_end
    expected = [(number, raw) for number, raw in enumerate(data.split(b"\n"), 1) if raw.strip()]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # Small blocks put a block's end into every place of a line.
        patch.setattr(scanning, "BLOCK_BYTES", block)
        path = Path(folder) / "a"
        path.write_bytes(data)
        with index(path, max_line_bytes=300) as job:
            read = zip(job.line_number.tolist(), map(job.read_raw, range(len(job))), strict=True)
            assert list(read) == expected
            for row in range(len(job)):
                if job.rejected[row]:
                    assert isinstance(job.error(row), LineError)
                else:
                    assert job.request(row).content == job.content[row].tobytes()
            ids = [job.request(row).custom_id for row in job.accepted]
            assert len(set(ids)) == len(ids)

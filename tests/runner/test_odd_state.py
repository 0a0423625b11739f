"""State that is not what a run would have left: it costs itself, or the run ends with 73 and a sentence."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blendrun.engine.base import Engine, EngineInfo
from blendrun.engine.replay import ReplayEngine
from blendrun.errors import BlendrunError, OutputUnavailableError
from blendrun.events import Listener
from blendrun.store.journal import Journal
from tests.command import REPLAY, blendrun, ids, write_jobs
from tests.runner.runner_job import line, run, write

ROWS = 6


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return write(tmp_path / "jobs.jsonl", *(line(f"id {row}") for row in range(ROWS)))


def state(out: Path, name: str) -> Path:
    return Path(f"{out}.blendrun") / name


def told(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(state(out, name).read_bytes())
    return found


def record(meta: dict[str, Any] | bytes, answer: bytes = b"{}") -> bytes:
    text = (meta if isinstance(meta, bytes) else json.dumps(meta).encode()) + b"\t" + answer
    return b"%08x " % zlib.crc32(text) + text + b"\n"


# Of a sound record's meta data and answer: one that no version has written yet.
_ODD: dict[str, Callable[[dict[str, Any], bytes], bytes]] = {
    "no JSON": lambda meta, answer: record(b"nonsense", answer),
    "no fields": lambda meta, answer: record({}, answer),
    "a key that is none": lambda meta, answer: record(meta | {"key": "zz" * 16}, answer),
    "a short key": lambda meta, answer: record(meta | {"key": "ab"}, answer),
    "four token counts": lambda meta, answer: record(meta | {"usage": [1, 2, 3, 4]}, answer),
    "no number": lambda meta, answer: record(meta | {"usage": ["a", 2, 3]}, answer),
    "an answer of another form": lambda meta, answer: record(meta),
    "an answer that breaks off": lambda meta, answer: record(meta, answer[:-1]),
    "a failure without its error": lambda meta, answer: record(meta | {"ok": False, "code": "engine_error"}, b"{"),
    "a failure that is none": lambda meta, answer: record(meta | {"ok": False, "code": "engine_error"}, answer),
    "reasons that are none": lambda meta, answer: record(meta | {"finish": "stop"}, answer),
    "not UTF-8": lambda meta, answer: record(b'{"key": "\xff"}', answer),
    "nothing behind the checksum": lambda meta, answer: b"%08x \n" % zlib.crc32(b""),
}


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answered")
    jobs = write(folder / "jobs.jsonl", *(line(f"id {row}") for row in range(ROWS)))
    run(folder / "out.jsonl", jobs)
    return folder


@contextmanager
def other_journal(out: Path, change: Callable[[bytes, dict[str, Any], bytes], bytes]) -> Iterator[None]:
    """With something else in the place of a journal's first record, made of its line, what it says, and its answer."""
    journal = state(out, "journal")
    whole = journal.read_bytes()
    header, first, rest = whole.split(b"\n", 2)
    meta, _, answer = first[9:].partition(b"\t")
    try:
        journal.write_bytes(header + b"\n" + change(first + b"\n", json.loads(meta), answer) + rest)
        yield
    finally:
        journal.write_bytes(whole)


@pytest.mark.parametrize("odd", _ODD)
def test_a_record_that_nobody_knows_costs_itself(answered: Path, odd: str) -> None:
    jobs, out = answered / "jobs.jsonl", answered / "out.jsonl"
    before = out.read_bytes()
    with other_journal(out, lambda first, meta, answer: _ODD[odd](meta, answer) + first):
        out.unlink()
        assert run(out, jobs).notes == ("1 damaged journal records passed over; their requests run again",)
        assert out.read_bytes() == before


@pytest.mark.parametrize("counts", [[2**40, 2, 3], [2**63, -5, 3], [-1, -1, -1], [10**40, 0, 0]])
def test_counts_beyond_what_the_ledger_holds_cost_no_answer(answered: Path, counts: list[int]) -> None:
    jobs, out = answered / "jobs.jsonl", answered / "out.jsonl"
    before = out.read_bytes()
    with other_journal(out, lambda _, meta, answer: record(meta | {"usage": counts}, answer)):
        out.unlink()
        run(out, jobs)
        assert out.read_bytes() == before


def test_a_line_longer_than_any_record_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blendrun.store.journal.LONGEST_RECORD", 1000)
    path = tmp_path / "journal"
    good = record({"key": "00" * 16, "ok": True, "usage": [1, 2, 3], "finish": [], "code": None}, b"7")
    path.write_bytes(b"blendrun-journal 1\n" + b"x" * 5000 + b"\n" + good)
    with Journal(path) as journal:
        (entry,) = journal.entries()
        assert journal.answer(entry.offset, entry.length) == b"7"
        assert journal.damaged == 1


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("summary.json", {}),
        ("records.jsonl", {"resume": False}),
        ("engine.log", {"resume": False}),
        ("steps.3.jsonl", {"resume": False}),
        ("journal.kept", {"retry_errors": True}),
        ("journal", {}),
    ],
)
def test_what_cannot_be_removed_or_opened_is_said(jobs: Path, out: Path, name: str, changes: dict[str, Any]) -> None:
    state(out, name).mkdir(parents=True)
    with pytest.raises(OutputUnavailableError, match=f"{name}: Is a directory"):
        run(out, jobs, **changes)
    assert told(out, "status.json")["blendrun"]["exit_code"] == 73


@pytest.mark.parametrize("name", ["estimates", "occupancy", "records.jsonl", "steps.jsonl", "plan.json", "status.json"])
def test_what_only_helps_does_not_matter(jobs: Path, out: Path, name: str) -> None:
    state(out, name).mkdir(parents=True)
    assert run(out, jobs).exit_code == 0
    assert ids(out) == [f"id {row}" for row in range(ROWS)]


class TestReading:
    """What the file system refuses of the journal."""

    @pytest.fixture
    def refusing(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        def refuse(call: str) -> None:
            def refused(*_: object, **__: object) -> Any:
                raise OSError(5, os.strerror(5))

            # The journal's own, and nobody else's.
            monkeypatch.setattr("blendrun.store.journal.os", SimpleNamespace(**vars(os) | {call: refused}))

        return refuse

    @pytest.mark.parametrize("call", ["open", "pread", "ftruncate", "write", "fsync"])
    def test_each_call_that_fails_is_73_and_a_sentence(
        self, jobs: Path, out: Path, call: str, refusing: Callable[[str], None]
    ) -> None:
        if call == "pread":
            run(out, jobs)
            out.unlink()
        with pytest.raises(
            OutputUnavailableError, match=r"journal: Input/output error; fix that, and the same command"
        ):
            refusing(call)
            run(out, jobs)

    def test_a_journal_that_became_shorter_is_said(self, tmp_path: Path) -> None:
        with Journal(tmp_path / "journal") as journal, pytest.raises(OutputUnavailableError, match="became shorter"):
            journal.answer(1000, 10)


class Failing(ReplayEngine):
    """Fails as nobody foresaw, or as a file system does."""

    error: Exception

    async def start(self, listener: Listener) -> EngineInfo:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code"), [(RuntimeError("a bug"), 1), (OSError(5, "Input/output error"), 73), (MemoryError(), 1)], ids=str
)
def test_status_and_summary_are_there_at_every_end(jobs: Path, out: Path, error: Exception, code: int) -> None:
    def make() -> Engine:
        engine = Failing.from_arguments({})
        assert isinstance(engine, Failing)
        engine.error = error
        return engine

    with pytest.raises(BlendrunError if code == 73 else type(error)):
        run(out, jobs, engine=make)
    assert told(out, "summary.json")["exit_code"] == code
    status = told(out, "status.json")
    assert (status["status"], status["blendrun"]["exit_code"]) == ("failed", code)
    assert run(out, jobs).exit_code == 0


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("sharded")
    write_jobs(folder / "jobs.jsonl", ROWS)
    for number in (1, 2):
        shard(folder, number)
    yield folder


def shard(folder: Path, number: int) -> int:
    jobs, out = folder / "jobs.jsonl", folder / "a.jsonl"
    return blendrun("run", "-q", jobs, "-o", out, *REPLAY, "--shard", f"{number}/2").returncode


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"PK\x03\x04",
        lambda whole: b"nonsense",
        lambda whole: whole.replace(b"row.npy", b"col.npy"),
        lambda whole: whole[:60] + bytes(60) + whole[120:],
    ],
    ids=["empty", "half", "first bytes", "no archive", "another name", "zeros within"],
)
def test_a_torn_shard_file_is_mended_by_running_the_shard_again(
    sharded: Path, damage: Callable[[bytes], bytes]
) -> None:
    kept = sharded / "a.2-of-2.jsonl.blendrun" / "shard.npz"
    kept.write_bytes(damage(kept.read_bytes()))
    merged = blendrun("merge", sharded / "a.jsonl")
    assert (merged.returncode, "shards not finished yet: 2 of 2; run them" in merged.stderr) == (75, True)
    assert shard(sharded, 2) == 0
    assert blendrun("merge", sharded / "a.jsonl").returncode == 0
    assert ids(sharded / "a.jsonl") == [f"id {row}" for row in range(ROWS)]

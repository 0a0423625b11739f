"""The ledger: exactly the rows that the journal has finished are finished."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blendrun.endpoints.base import Usage
from blendrun.jobs.job import Job
from blendrun.store.journal import Entry
from blendrun.store.ledger import ANSWERED, FAILED, UNFINISHED, Ledger
from tests.runner.runner_job import index, line, write

SALT = b"salt"


def entry(key: bytes, place: int = 0, *, ok: bool = True) -> Entry:
    code = None if ok else "engine_error"
    return Entry(key, ok, Usage(10 * place, place, 1), ("stop",) if ok else (), code, 100 * place, place)


def make_job(folder: str | Path, rows: int) -> Job:
    lines = [line(f"id {row}") if row % 4 else b'{"custom_id": "no request %d"}' % row for row in range(rows)]
    return index(write(Path(folder) / "jobs", *lines))


@given(st.integers(1, 40), st.data())
def test_marks_the_rows_whose_key_is_there_and_no_other(rows: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, make_job(folder, rows) as job:
        accepted = job.accepted.tolist()
        done = data.draw(st.lists(st.sampled_from(accepted), unique=True) if accepted else st.just([]))
        foreign = data.draw(st.lists(st.binary(min_size=16, max_size=16), max_size=5))
        entries = [entry(job.key(row, SALT), row, ok=row % 3 > 0) for row in done]
        entries += [entry(key) for key in foreign] + [entry(job.key(row, b"other salt")) for row in accepted]
        ledger = Ledger(job, SALT)
        ledger.load(data.draw(st.permutations(entries)))
        expected = np.full(rows, UNFINISHED)
        for row in done:
            expected[row] = ANSWERED if row % 3 else FAILED
        assert ledger.state.tolist() == expected.tolist()
        assert ledger.unfinished().tolist() == [row for row in accepted if row not in done]
        assert ledger.offset.tolist() == [100 * row if row in done else -1 for row in range(rows)]
        assert ledger.usage.tolist() == [10 * sum(done), sum(done), len(done)]
        assert ledger.finished == len(done)
        assert ledger.error_codes.total() == sum(row % 3 == 0 for row in done)


def test_the_first_entry_of_a_key_counts(tmp_path: Path) -> None:
    with make_job(tmp_path, 2) as job:
        ledger = Ledger(job, SALT)
        key = job.key(1, SALT)
        ledger.load([entry(key, 1), entry(key, 2, ok=False)])
        assert (ledger.offset[1], ledger.finished, ledger.state[1]) == (100, 1, ANSWERED)
        assert not ledger.error_codes


def test_keys_that_end_in_zero_bytes_are_told_apart(tmp_path: Path) -> None:
    """NumPy takes trailing zeros of a byte string for padding; a key with some must find its own row."""
    with index(write(tmp_path / "jobs", *(line(f"id {row}") for row in range(700)))) as job:
        ending = [row for row in range(700) if job.key(row, SALT).endswith(b"\0")]
        assert ending, "700 keys, one in 256 ends so"
        ledger = Ledger(job, SALT)
        ledger.load(
            [entry(job.key(ending[0], SALT), 1)]
            + [entry(job.key(row, SALT).rstrip(b"\0").ljust(16, b"\1"), 2) for row in ending]
        )
        assert np.flatnonzero(ledger.state).tolist() == [ending[0]]


def test_a_job_without_one_good_line_loads_any_journal(tmp_path: Path) -> None:
    with index(write(tmp_path / "jobs", b'{"custom_id": "no"}', b"{}")) as job:
        ledger = Ledger(job, SALT)
        ledger.load([entry(bytes(16))])
        assert ledger.finished == 0
        assert len(ledger.unfinished()) == 0


def test_more_entries_than_one_batch_are_all_seen(tmp_path: Path) -> None:
    with index(write(tmp_path / "jobs", line("a"), line("b"))) as job:
        ledger = Ledger(job, SALT)
        strangers = (entry(number.to_bytes(16, "big")) for number in range(20_000))
        ledger.load([*strangers, entry(job.key(1, SALT), 3)])
        assert ledger.unfinished().tolist() == [0]

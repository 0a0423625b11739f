"""The journal: what was written is read again, and damage costs the records it touches and no other."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from blendrun.endpoints.base import Usage
from blendrun.errors import ManifestMismatchError, OutputUnavailableError
from blendrun.store.journal import Entry, Journal, Record

HEADER = b"blendrun-journal 1\n"

tokens = st.integers(0, 2**31 - 1)
records = st.builds(
    Record,
    key=st.binary(min_size=16, max_size=16),
    ok=st.booleans(),
    usage=st.builds(Usage, tokens, tokens, tokens),
    finish_reasons=st.lists(st.sampled_from(["stop", "length", "tool_calls", ""]), max_size=3).map(tuple),
    error_code=st.none() | st.sampled_from(["engine_error", "invalid_request"]),
    # Any bytes that JSON may hold: everything but raw control characters.
    answer=st.text(st.characters(codec="utf-8", min_codepoint=32), max_size=60).map(str.encode),
)


def write(path: Path, written: Sequence[Record]) -> list[Entry]:
    with Journal(path) as journal:
        return [journal.append(record) for record in written]


def read(path: Path) -> list[Record]:
    with Journal(path) as journal:
        return [
            Record(
                entry.key,
                entry.ok,
                entry.usage,
                entry.finish_reasons,
                entry.error_code,
                journal.answer(entry.offset, entry.length),
            )
            for entry in journal.entries()
        ]


def make(place: int, ok: bool = True) -> Record:
    answer = b'{"answer":%d}' % place
    return Record(place.to_bytes(16, "big"), ok, Usage(place, 0, 1), ("stop",), None if ok else "engine_error", answer)


def ends_of_records(path: Path) -> list[int]:
    """Byte positions behind the header and behind each record."""
    return [place + 1 for place, byte in enumerate(path.read_bytes()) if byte == 10]


@given(st.lists(st.lists(records, max_size=5), max_size=4))
def test_what_is_written_in_any_number_of_openings_is_read_in_order(parts: list[list[Record]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        entries = [entry for part in parts for entry in write(path, part)]
        assert read(path) == [record for part in parts for record in part]
        with Journal(path) as journal:
            assert list(journal.entries()) == entries, "append tells the place that reading finds"
            assert journal.damaged == 0


@given(st.lists(records, max_size=6), st.data())
def test_cut_anywhere_all_whole_records_before_the_cut_survive_and_work_goes_on(
    written: list[Record], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        write(path, written)
        ends = ends_of_records(path)
        cut = data.draw(st.integers(0, path.stat().st_size), label="cut")
        path.write_bytes(path.read_bytes()[:cut])
        whole = written[: max(0, sum(end <= cut for end in ends) - 1)]
        assert read(path) == whole
        write(path, [make(7)])
        assert read(path) == [*whole, make(7)]
        with Journal(path) as journal:
            list(journal.entries())
            assert journal.damaged == 0, "a cut tail is gone, not damage"


@given(st.lists(records, min_size=1, max_size=6), st.data())
def test_a_flipped_byte_costs_at_most_the_records_it_touches(written: list[Record], data: st.DataObject) -> None:
    assume(len({record.key for record in written}) == len(written))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        write(path, written)
        ends = ends_of_records(path)
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(len(HEADER), len(content) - 1), label="place")
        content[place] ^= data.draw(st.integers(1, 255), label="bits")
        path.write_bytes(content)
        touched = sum(end <= place for end in ends) - 1
        # A newline belongs to the records on both of its sides.
        lost = {touched, touched + 1} if place + 1 in ends else {touched}
        kept = [record for number, record in enumerate(written) if number not in lost]
        found = read(path)
        assert [record for record in found if record in kept] == kept
        assert all(record in written for record in found), "nothing is invented"
        write(path, [make(7)])
        assert read(path) == [*found, make(7)]


def test_damaged_records_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, [make(place) for place in range(5)])
    path.write_bytes(path.read_bytes().replace(b'{"answer":1}', b'{"answer":9}').replace(b'{"answer":3}', b"xxx"))
    with Journal(path) as journal:
        assert [entry.key[-1] for entry in journal.entries()] == [0, 2, 4]
        assert journal.damaged == 2
        assert len(list(journal.entries())) == 3
        assert journal.damaged == 2, "counted anew at each reading"


def test_zeros_that_a_power_cut_left_at_the_end_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, [make(1)])
    with path.open("ab") as file:
        file.write(bytes(200_000))
    assert read(path) == [make(1)]
    assert path.stat().st_size < 1000


class TestDropErrors:
    @given(st.lists(records, max_size=8))
    def test_keeps_the_successes_in_order_and_appends_behind_them(self, written: list[Record]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "journal"
            write(path, written)
            with Journal(path) as journal:
                journal.drop_errors()
                entry = journal.append(make(7))
                assert journal.answer(entry.offset, entry.length) == make(7).answer
            successes = [
                Record(record.key, True, record.usage, record.finish_reasons, record.error_code, record.answer)
                for record in written
                if record.ok
            ]
            assert read(path) == [*successes, make(7)]
            assert [file.name for file in Path(folder).iterdir()] == ["journal"]

    def test_a_rewrite_that_was_killed_half_way_leaves_no_trace_in_the_next(self, tmp_path: Path) -> None:
        path = tmp_path / "journal"
        write(path, [make(1), make(2, ok=False)])
        write(tmp_path / "journal.kept", [make(9)])
        with Journal(path) as journal:
            journal.drop_errors()
        assert read(path) == [make(1)]


class TestForeignFile:
    @pytest.mark.parametrize("content", [b"blendrun-journal 2\nxxxx\n", b"x" * 100, bytes(19)])
    def test_another_format_is_refused_and_left_alone(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "journal"
        path.write_bytes(content)
        with pytest.raises(ManifestMismatchError, match="written by another version; move it away, or use --no-resume"):
            Journal(path)
        assert path.read_bytes() == content

    @pytest.mark.parametrize("place", [0, 3, 10])
    def test_a_flipped_byte_in_the_header_costs_no_record(self, tmp_path: Path, place: int) -> None:
        path = tmp_path / "journal"
        write(path, [make(1), make(2)])
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
        assert read(path) == [make(1), make(2)]
        with Journal(path) as journal:
            list(journal.entries())
            assert journal.damaged == 1

    def test_a_flipped_byte_in_the_header_without_a_record_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "journal"
        path.write_bytes(b"blendrxn-journal 1\n")
        with pytest.raises(ManifestMismatchError):
            Journal(path)


def test_a_file_without_its_header_was_emptied_and_a_new_one_was_not(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        assert not journal.emptied
    path.write_bytes(b"blend")
    with Journal(path) as journal:
        assert journal.emptied
        assert journal.empty
    with Journal(path) as journal:
        assert not journal.emptied


def test_a_folder_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(OutputUnavailableError, match=r"cannot open the journal .*: Is a directory"):
        Journal(tmp_path)


@pytest.mark.parametrize("torn", [1, 65_535, 65_536, 65_537, 131_072, 200_000])
def test_a_torn_tail_of_any_length_is_cut_off(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "journal"
    write(path, [make(1), make(2)])
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * torn)
    with Journal(path) as journal:
        assert path.read_bytes() == whole
        assert [entry.key for entry in journal.entries()] == [make(1).key, make(2).key]
        assert journal.damaged == 0


def test_it_is_forced_onto_the_disk_at_intervals_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, synced = [1000.0], []
    monkeypatch.setattr("blendrun.store.journal.time.monotonic", lambda: now[0])
    monkeypatch.setattr("blendrun.store.journal.os.fsync", lambda _: synced.append(now[0]))
    with Journal(tmp_path / "journal") as journal:
        # Each interval counts from the last time: every fourth record here.
        for place in range(9):
            now[0] += 2.0
            journal.append(make(place))
        assert synced == [1006.0, 1012.0, 1018.0]
        now[0] += 1.0
    assert synced[-1] == 1019.0


def test_closed_it_holds_no_descriptor_and_may_be_closed_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    descriptor = journal._file
    os.fstat(descriptor)
    journal.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    journal.close()


def test_without_room_for_a_copy_errors_are_not_dropped_and_half_a_copy_goes(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, [make(place, ok=place % 2 == 0) for place in range(200)])
    whole = path.read_bytes()
    program = (
        "import sys; from pathlib import Path; from blendrun.store.journal import Journal\n"
        "from blendrun.errors import OutputUnavailableError\n"
        "try: Journal(Path(sys.argv[1])).drop_errors()\n"
        "except OutputUnavailableError as error: print(error)"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run([sys.executable, "-c", program, path], preexec_fn=limit, capture_output=True, text=True)
    assert "journal.kept: File too large" in done.stdout, done.stderr
    assert path.read_bytes() == whole
    assert [each.name for each in tmp_path.iterdir()] == ["journal"]


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    write(tmp_path / "journal", [make(1)])
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600


# Answers until no byte more can be written, as on a full disk, then says which error came.
_FILL = """
import sys
from pathlib import Path
from blendrun.endpoints.base import Usage
from blendrun.errors import OutputUnavailableError
from blendrun.store.journal import Journal, Record
journal = Journal(Path(sys.argv[1]))
try:
    for place in range(10_000):
        journal.append(Record(place.to_bytes(16, "big"), True, Usage(), (), None, b'"%d"' % place))
except OutputUnavailableError as error:
    print(place, error)
"""


def test_a_full_disk_keeps_what_was_written_and_the_next_opening_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        [sys.executable, "-c", _FILL, path], preexec_fn=limit, capture_output=True, text=True, check=True
    )
    place, _, message = done.stdout.partition(" ")
    assert message.strip() == (
        f"cannot write {path}: File too large; raise the limit of file sizes (ulimit -f), and the same command "
        "resumes: what is in it is kept"
    )
    assert [int.from_bytes(record.key, "big") for record in read(path)] == list(range(int(place)))
    write(path, [make(7)])
    assert read(path)[-1] == make(7)


@pytest.mark.parametrize("damage", [b"0\n", b"00000000\n", b"-0 \n", b"00000000 \n", b"\n", b"12345678 x\n"])
def test_a_damaged_line_of_any_form_is_passed_over(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "journal"
    with Journal(path):
        pass
    path.write_bytes(path.read_bytes() + damage)
    with Journal(path) as journal:
        assert list(journal.entries()) == []
        assert journal.damaged == 1


def test_a_record_is_found_by_its_answer_however_much_it_says_before_that(tmp_path: Path) -> None:
    records = [
        Record(number.to_bytes(16, "big"), True, Usage(1, 0, 2), ("stop",) * many, None, b'{"n":%d}' % number)
        for number, many in enumerate((1, 3_000, 0, 30_000, 1))
    ]
    with Journal(tmp_path / "journal") as journal:
        entries = [journal.append(record) for record in records]
        assert [journal.record(entry.offset, entry.length) for entry in entries] == records
        data = (tmp_path / "journal").read_bytes()
        (tmp_path / "journal").write_bytes(data.replace(b'{"n":3}', b'{"n":4}', 1))
        assert journal.record(entries[3].offset, entries[3].length) is None

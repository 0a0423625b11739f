"""open_sources: whatever holds the lines becomes a file that can be read at any offset."""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from blendrun.errors import (
    BlendrunError,
    InputInvalidError,
    InputMissingError,
    OutputUnavailableError,
    UsageError,
)
from blendrun.jobs.source import Source, open_sources
from blendrun.jobs.spool import remove_halves, remove_others
from blendrun.jobs.tables import made
from tests import needs
from tests.jobs.job_lines import line, write

TEXT = b"".join(line(f"id-{number}") + b"\n" for number in range(500))
HALF = len(TEXT) // 2


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def zst_wide(data: bytes) -> bytes:
    """With a window of 1 GiB, above what decompressors take unasked, and no size in the header."""
    settings = zstandard.ZstdCompressionParameters(window_log=30)
    packer = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    return packer.compress(data) + packer.flush()


SKIPPABLE = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "state" / "spool"


def open_one(path: str | Path, spool: Path) -> Source:
    return open_sources([path], spool)[0]


def test_a_plain_file_is_read_where_it_is(tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "jobs.txt", line())
    monkeypatch.chdir(tmp_path)
    source = open_one("jobs.txt", spool)
    assert source == Source("jobs.txt", tmp_path / "jobs.txt", len(line()) + 1)
    assert not spool.exists()


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(TEXT),
        gzip.compress(TEXT[:HALF]) + gzip.compress(b"") + gzip.compress(TEXT[HALF:]) + bytes(512),
        zst(TEXT),
        zst(TEXT[:HALF]) + zst(TEXT[HALF:]),
        SKIPPABLE + zst(TEXT) + SKIPPABLE,
    ],
    ids=["gzip", "gzip-members-padded", "zstd", "zstd-frames", "zstd-skippable"],
)
@pytest.mark.parametrize("name", ["jobs.jsonl", "jobs.gz"])
def test_packed_files_are_known_by_their_bytes_and_unpacked_whole(
    tmp_path: Path, spool: Path, packed: bytes, name: str
) -> None:
    (tmp_path / name).write_bytes(packed)
    source = open_one(tmp_path / name, spool)
    assert source.path.read_bytes() == TEXT
    assert source.size == len(TEXT)
    assert source.name == str(tmp_path / name)
    assert source.path.stat().st_mode & 0o777 == 0o600
    assert not list(spool.glob("*.tmp"))


def test_a_plain_file_with_a_packed_name_is_plain(tmp_path: Path, spool: Path) -> None:
    path = write(tmp_path / "jobs.jsonl.gz", line())
    assert open_one(path, spool).path == path


def test_an_empty_packed_file_is_an_empty_source(tmp_path: Path, spool: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b""))
    assert open_one(tmp_path / "a.gz", spool).size == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(TEXT)[:-3], "ends in the middle of its gzip data"),
        (gzip.compress(TEXT)[:20], "ends in the middle of its gzip data"),
        (gzip.compress(TEXT)[:-6] + b"\0\0\0\0\0\0", "is not sound gzip data"),
        (gzip.compress(TEXT) + b"junk", "is not sound gzip data"),
        (zst(TEXT)[:-1], "ends in the middle of its zstd data"),
        (zst(TEXT) + zst(TEXT)[:9], "ends in the middle of its zstd data"),
        (zst(TEXT) + b"junkjunk", "is not sound zstd data"),
        (b"PAR1" + TEXT, "a Parquet file"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\xfd7zXZ\0", "xz data"),
        (TEXT.decode().encode("utf-16"), "UTF-16 text; save it as UTF-8"),
    ],
)
def test_broken_and_foreign_files_are_refused_by_name(tmp_path: Path, spool: Path, data: bytes, words: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(data)
    with pytest.raises(InputInvalidError, match=r"bad\.jsonl") as caught:
        open_one(path, spool)
    assert words in str(caught.value)
    assert not spool.exists() or not list(spool.iterdir()), "nothing half-made stays behind"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "is a folder; name the files in it"),
        (lambda path: path.symlink_to(path), "symbolic links"),
    ],
    ids=["missing", "folder", "loop"],
)
def test_what_cannot_be_opened_is_named(tmp_path: Path, spool: Path, make: Callable[[Path], None], words: str) -> None:
    make(tmp_path / "gone.jsonl")
    with pytest.raises(InputMissingError, match=r"gone\.jsonl") as caught:
        open_one(tmp_path / "gone.jsonl", spool)
    assert words in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason=needs.ORDINARY_USER)
def test_a_file_without_permission_is_named(tmp_path: Path, spool: Path) -> None:
    write(tmp_path / "mine.jsonl", line()).chmod(0)
    with pytest.raises(InputMissingError, match=r"mine\.jsonl: Permission denied"):
        open_one(tmp_path / "mine.jsonl", spool)


def test_a_missing_file_is_found_before_anything_is_unpacked(tmp_path: Path, spool: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(TEXT))
    with pytest.raises(InputMissingError):
        open_sources([tmp_path / "a.gz", tmp_path / "b"], spool)
    assert not spool.exists()


def test_one_file_cannot_be_given_twice_under_any_name(tmp_path: Path, spool: Path) -> None:
    path = write(tmp_path / "a.jsonl", line())
    link = tmp_path / "b.jsonl"
    link.symlink_to(path)
    with pytest.raises(UsageError, match="given twice"):
        open_sources([path, str(path)], spool)
    with pytest.raises(UsageError, match="are the same file"):
        open_sources([path, link], spool)
    with pytest.raises(UsageError, match="<stdin> is given twice"):
        open_sources(["-", "-"], spool)
    with pytest.raises(UsageError, match="no input"):
        open_sources([], spool)


@pytest.mark.parametrize("data", [TEXT, gzip.compress(TEXT), zst(TEXT), b"", b"{"])
def test_stdin_is_copied_and_unpacked(spool: Path, data: bytes) -> None:
    program = (
        "import pathlib, sys; from blendrun.jobs.source import open_sources\n"
        "source, = open_sources(['-'], pathlib.Path(sys.argv[1]))\n"
        "print(source.name, source.size, source.path)"
    )
    done = subprocess.run([sys.executable, "-c", program, spool], input=data, capture_output=True, check=True)
    name, size, path = done.stdout.decode().split()
    expected = TEXT if len(data) > 1 else data
    assert (name, int(size)) == ("<stdin>", len(expected))
    assert Path(path).read_bytes() == expected


def test_a_pipe_by_path_is_read_like_stdin(spool: Path) -> None:
    read_end, write_end = os.pipe()

    def feed() -> None:
        with os.fdopen(write_end, "wb", buffering=0) as pipe:
            for byte in gzip.compress(TEXT):
                pipe.write(bytes([byte]))

    feeder = threading.Thread(target=feed)
    feeder.start()
    source = open_one(f"/dev/fd/{read_end}", spool)
    feeder.join()
    os.close(read_end)
    assert source.path.read_bytes() == TEXT


class TestUnpackingOnce:
    @pytest.fixture
    def packed(self, tmp_path: Path) -> Path:
        path = tmp_path / "a.gz"
        path.write_bytes(gzip.compress(TEXT))
        os.utime(path, (1_600_000_000, 1_600_000_000))
        return path

    def test_an_unchanged_file_is_not_unpacked_again(self, packed: Path, spool: Path) -> None:
        first = open_one(packed, spool)
        before = first.path.stat()
        assert open_one(packed, spool) == first
        after = first.path.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    def test_a_changed_file_is(self, packed: Path, spool: Path) -> None:
        open_one(packed, spool)
        packed.write_bytes(gzip.compress(TEXT + TEXT))
        assert open_one(packed, spool).path.read_bytes() == TEXT + TEXT

    def test_so_is_one_whose_copy_was_touched_or_lost(self, packed: Path, spool: Path) -> None:
        copy = open_one(packed, spool).path
        copy.write_bytes(TEXT[::-1])
        assert open_one(packed, spool).path.read_bytes() == TEXT
        copy.unlink()
        assert open_one(packed, spool).path.read_bytes() == TEXT

    def test_a_damaged_note_is_only_a_note(self, packed: Path, spool: Path) -> None:
        open_one(packed, spool)
        for note in spool.glob("*.json"):
            note.write_bytes(b"[1]")
        assert open_one(packed, spool).path.read_bytes() == TEXT

    def test_a_file_written_just_now_is_not_trusted_by_its_time_stamp(self, packed: Path, spool: Path) -> None:
        os.utime(packed)
        open_one(packed, spool)
        assert not list(spool.glob("*.json"))


def test_a_spool_folder_that_cannot_be_made_is_the_output_s_fault(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(TEXT))
    blocked = write(tmp_path / "file", b"")
    with pytest.raises(OutputUnavailableError, match=r"cannot unpack .*a\.gz"):
        open_one(tmp_path / "a.gz", blocked / "spool")


def test_a_name_that_is_not_utf_8_can_still_be_printed(tmp_path: Path, spool: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl")
    write(Path(path), line())
    open_one(path, spool).name.encode()
    with pytest.raises(BlendrunError) as caught:
        open_one(path + "x", spool)
    str(caught.value).encode()


def test_a_zstd_window_above_what_zstd_takes_unasked_is_a_wish(tmp_path: Path, spool: Path) -> None:
    """All of it is held while it is unpacked."""
    (tmp_path / "jobs").write_bytes(zst_wide(TEXT))
    with pytest.raises(InputInvalidError, match=r"needs as much memory: give --zstd-window N for .* --long=N"):
        open_sources([tmp_path / "jobs"], spool)
    (source,) = open_sources([tmp_path / "jobs"], spool, 30)
    assert source.path.read_bytes() == TEXT


class TestLeftovers:
    def test_half_copies_go_and_whole_ones_stay(self, spool: Path) -> None:
        spool.mkdir(parents=True)
        for name in (".spool-a.tmp", ".spool-b", "aa.jsonl", "aa.json"):
            (spool / name).touch()
        remove_halves(spool)
        assert sorted(path.name for path in spool.iterdir()) == ["aa.json", "aa.jsonl"]
        remove_halves(spool / "nowhere")

    def test_copies_of_inputs_that_are_no_longer_the_jobs_go_with_their_notes(
        self, tmp_path: Path, spool: Path
    ) -> None:
        for name in ("old", "new"):
            path = tmp_path / name
            path.write_bytes(gzip.compress(TEXT + name.encode()))
            # Younger ones are not trusted to stay as they are, and not noted.
            os.utime(path, (1e9, 1e9))
        open_sources([tmp_path / "old"], spool)
        (source,) = open_sources([tmp_path / "new"], spool)
        assert len(list(spool.iterdir())) == 4
        (spool / "torn.json").write_bytes(b"{")
        remove_others(spool, [source.path])
        left = sorted(spool.iterdir())
        assert len(left) == 2 and source.path in left
        (again,) = open_sources([tmp_path / "new"], spool)
        assert again.path == source.path


def test_a_copy_that_cannot_be_looked_at_for_rows_is_the_state_folders_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(made, "find_table", fails)
    plain, packed = tmp_path / "jobs.jsonl", tmp_path / "jobs.jsonl.gz"
    plain.write_bytes(b"{}\n")
    packed.write_bytes(gzip.compress(b"{}\n"))
    with pytest.raises(InputMissingError, match="was it moved"):
        open_sources([plain], tmp_path / "spool")
    with pytest.raises(OutputUnavailableError, match="the same command unpacks it again"):
        open_sources([packed], tmp_path / "spool")

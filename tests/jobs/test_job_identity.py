"""What makes two rows the same: a custom_id used twice, and the fingerprint of a whole job."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import numpy as np
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from blendrun.errors import ErrorCode
from blendrun.jobs.first_rows import first_rows
from tests.jobs.job_lines import index, line, write


class TestDuplicates:
    def test_the_first_stays_and_every_later_one_names_it(self, tmp_path: Path) -> None:
        one = write(tmp_path / "one", line("x"), b"", line("a"))
        two = write(tmp_path / "two", line("a"), line("a"), line("b"))
        job = index(one, two)
        assert job.duplicate_of.tolist() == [-1, -1, 1, 1, -1]
        assert job.rejected.tolist() == [False, False, True, True, False]
        error = job.error(3)
        assert (error.code, error.custom_id) == (ErrorCode.DUPLICATE_CUSTOM_ID, "a")
        assert error.message == f"custom_id 'a' is already that of line 3 of {one}; the first one is kept"

    def test_a_refused_line_owns_no_id(self, tmp_path: Path) -> None:
        job = index(write(tmp_path / "one", line("a", body=1), line("a"), line("a", url="x"), line("a")))
        assert job.duplicate_of.tolist() == [-1, -1, -1, 1]
        assert job.error(2).code is ErrorCode.INVALID_REQUEST, "what is wrong with the line itself comes first"

    @given(st.lists(st.integers(0, 12), min_size=1, max_size=60))
    def test_they_are_those_that_a_dict_finds(self, ids: list[int]) -> None:
        seen: dict[int, int] = {}
        expected = []
        for row, name in enumerate(ids):
            expected.append(seen.get(name, -1))
            seen.setdefault(name, row)
        with tempfile.TemporaryDirectory() as folder:
            job = index(write(Path(folder) / "a", *(line(f"id {name}") for name in ids)))
            assert job.duplicate_of.tolist() == expected
            job.close()

    def test_ids_that_share_half_a_digest_are_different_ids(self) -> None:
        owner = np.array([[1, 2], [1, 1], [1, 2], [2, 1], [1, 1], [1, 2]], dtype=np.uint64)
        assert first_rows(owner, np.zeros(6, bool)).tolist() == [-1, -1, 0, -1, 1, 0]


class TestFingerprint:
    LINES = (*(line(f"id {number}") for number in range(5)), b"not json", line("id 0"))

    def test_packing_splitting_blank_lines_and_names_do_not_change_it(self, tmp_path: Path) -> None:
        plain = write(tmp_path / "plain", *self.LINES)
        packed = tmp_path / "x.gz"
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        frames = tmp_path / "x.zst"
        frames.write_bytes(zstandard.ZstdCompressor().compress(plain.read_bytes()))
        airy = write(tmp_path / "airy", *self.LINES, end=b"\n\n")
        parts = write(tmp_path / "1", *self.LINES[:3]), write(tmp_path / "2", *self.LINES[3:])
        jobs = [index(plain), index(packed), index(frames), index(airy), index(*parts)]
        assert {job.fingerprint for job in jobs} == {index(plain).fingerprint}

    def test_any_line_changes_it_also_a_refused_one_and_the_order(self, tmp_path: Path) -> None:
        variants = [
            self.LINES,
            self.LINES[:-1],
            self.LINES[::-1],
            (*self.LINES[:5], b"not jsom", self.LINES[6]),
        ]
        prints = {index(write(tmp_path / "a", *lines)).fingerprint for lines in variants}
        assert len(prints) == 4

    def test_a_selection_keeps_it_and_a_limited_index_has_that_of_its_lines(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a", *self.LINES)
        job = index(path)
        assert job.select(3).fingerprint == job.fingerprint
        assert index(path, limit=3).fingerprint == index(write(tmp_path / "b", *self.LINES[:3])).fingerprint
        assert index(path, limit=99).fingerprint == job.fingerprint

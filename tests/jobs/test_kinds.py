"""What holds no request is refused whole, with what it is and what to do, on every way in."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zstandard

from blendrun.errors import InputInvalidError, LineError
from blendrun.jobs.line import parse_line
from blendrun.jobs.source import open_sources
from blendrun.jobs.trace import read_trace
from tests.command import REPLAY, blendrun, ids, line, write_jobs

TEXT = b"".join(line(f"id {row}") + b"\n" for row in range(2))


def tar(kind: int) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=kind) as archive:
        member = tarfile.TarInfo("jobs.jsonl")
        member.size = len(TEXT)
        archive.addfile(member, io.BytesIO(TEXT))
    return made.getvalue()


def zipped() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("jobs.jsonl", TEXT)
    return made.getvalue()


ARRAYS = {
    "on one line": b"[" + b",".join(TEXT.splitlines()) + b"]",
    "pretty-printed": json.dumps([json.loads(text) for text in TEXT.splitlines()], indent=2).encode(),
    "an element a line": b"[\n" + b",\n".join(TEXT.splitlines()) + b"\n]\n",
}
KINDS = {
    "UTF-16 text": TEXT.decode().encode("utf-16"),
    "UTF-16 text without a byte order mark, little": TEXT.decode().encode("utf-16-le"),
    "UTF-16 text without a byte order mark, big": TEXT.decode().encode("utf-16-be"),
    "UTF-32 text without": TEXT.decode().encode("utf-32-le"),
    "a tar archive": tar(tarfile.PAX_FORMAT),
    "a tar archive, old": tar(tarfile.USTAR_FORMAT).replace(b"ustar\x0000", b"\0" * 8),
    "a zip archive": zipped(),
    "a Parquet file": b"PAR1" + TEXT,
    "xz data": lzma.compress(TEXT),
    "lzma data": lzma.compress(TEXT, lzma.FORMAT_ALONE),
    "bzip2 data": bz2.compress(TEXT),
    "a page of HTML": b"\n<!DOCTYPE html><title>Sign in</title>",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\n",
    "a JSON array of what is neither rows nor requests": b"[\n1,\n2\n]\n",
    "JSON over several lines": json.dumps(json.loads(TEXT.splitlines()[0]), indent=2).encode(),
    "two values are on the line": b" ".join(TEXT.splitlines()) + b"\n",
    "NaN and Infinity are no JSON": TEXT.replace(b'"Hello"', b"NaN"),
    "need double quotes": "".join(f"{json.loads(text)}\n" for text in TEXT.splitlines()).encode(),
    "a comma stands before a closing bracket": TEXT.replace(b"}]", b"},]"),
    "it holds the answers of a batch": b'{"id":"x","custom_id":"a","response":{},"error":null}\n',
    "it holds the answers of a batch, not requests": b'{"custom_id":"a","result":{"type":"succeeded"}}\n',
}
# A tar header whose mark is gone has another sum.
_OLD = bytearray(KINDS["a tar archive, old"][:512])
_OLD[148:156] = b"%06o\0 " % (sum(_OLD[:148]) + 8 * 32 + sum(_OLD[156:]))
KINDS["a tar archive, old"] = bytes(_OLD) + KINDS["a tar archive, old"][512:]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["plain", "gzip", "zstd", "stdin"])
def test_on_every_way_in(tmp_path: Path, kind: str, way: str) -> None:
    data = KINDS[kind]
    packed = {"gzip": gzip.compress(data), "zstd": zstandard.compress(data)}.get(way, data)
    name = "-" if way == "stdin" else str(tmp_path / "jobs.jsonl")
    (tmp_path / "jobs.jsonl").write_bytes(packed)
    done = blendrun("run", "-q", name, "-o", tmp_path / "out", *REPLAY, input=data if way == "stdin" else b"")
    said = done.stderr.splitlines()
    assert done.returncode == 65, said
    assert kind.partition(",")[0] in said[-1]
    assert len(said) == 1, "one sentence, not one for each line"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ARRAYS)
@pytest.mark.parametrize("way", ["plain", "gzip", "stdin"])
def test_one_array_of_requests_is_their_lines(tmp_path: Path, form: str, way: str) -> None:
    data = ARRAYS[form]
    (tmp_path / "jobs.json").write_bytes(gzip.compress(data) if way == "gzip" else data)
    name = "-" if way == "stdin" else str(tmp_path / "jobs.json")
    done = blendrun("run", "-q", name, "-o", tmp_path / "out", *REPLAY, input=data if way == "stdin" else b"")
    assert done.returncode == 0, done.stderr
    assert ids(tmp_path / "out") == ["id 0", "id 1"]


def test_a_line_that_is_an_array_is_only_a_wrong_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b'[{"prompt": "Hi"}]\n' + TEXT)
    assert blendrun("run", "-q", "a", *REPLAY, cwd=tmp_path).returncode == 3
    assert ids(tmp_path / "a.answers.jsonl") == ["id 0", "id 1"]


def test_a_packed_file_in_a_packed_file(tmp_path: Path) -> None:
    (tmp_path / "a.gz.gz").write_bytes(gzip.compress(gzip.compress(TEXT)))
    with pytest.raises(InputInvalidError, match="gzip data inside what was unpacked; unpack it once"):
        open_sources([tmp_path / "a.gz.gz"], tmp_path / "spool")


def test_beside_one_request_a_bad_line_is_an_error_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(TEXT + b"{'custom_id': 'x'}\n")
    assert blendrun("run", "-q", "a", *REPLAY, cwd=tmp_path).returncode == 3
    assert ids(tmp_path / "a.answers.jsonl") == ["id 0", "id 1"]


def test_one_file_of_several_without_a_request(tmp_path: Path) -> None:
    write_jobs(tmp_path / "a.jsonl", 2)
    (tmp_path / "b.jsonl").write_text('{"notes": "mine"}\n')
    done = blendrun("run", "-q", "a.jsonl", "b.jsonl", *REPLAY, cwd=tmp_path)
    assert (done.returncode, "b.jsonl holds no request" in done.stderr) == (65, True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{'custom_id': 'a'}", "need double quotes"),
        ('{"a": None}', "JSON has null, true and false"),
        ('{"a": 1} // mine', "two values"),
        ('{"a": 1},', "a comma stands behind it"),
        ('{"a": "it, [\'s]", "b": 1,}', "a comma stands before"),
        ("{a: 1}", "names need double quotes"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(text: str, why: str) -> None:
    with pytest.raises(LineError, match=why):
        parse_line(text.encode())


class TestOwnAnswers:
    @pytest.mark.parametrize("fail", [False, True])
    def test_the_same_command_again_answers_nothing_anew(self, tmp_path: Path, fail: bool) -> None:
        write_jobs(tmp_path / "a.jsonl", 4)
        words = (*REPLAY, *(("--engine-arg", "fail_every=2") if fail else ()))

        def run() -> tuple[int, str]:
            inputs = sorted(path.name for path in tmp_path.glob("*.jsonl"))
            done = blendrun("run", "-q", *inputs, *words, cwd=tmp_path)
            return done.returncode, done.stderr

        first, _ = run()
        names = {path.name for path in tmp_path.iterdir()}
        again, said = run()
        assert first == again == (3 if fail else 0)
        assert "a.answers.jsonl is left out: it holds what a run answered, no requests" in said
        assert {path.name for path in tmp_path.iterdir()} == names

    def test_alone_they_are_refused(self, tmp_path: Path) -> None:
        write_jobs(tmp_path / "a.jsonl", 2)
        assert blendrun("run", "a.jsonl", *REPLAY, cwd=tmp_path).returncode == 0
        done = blendrun("run", "a.answers.jsonl", *REPLAY, cwd=tmp_path)
        assert done.returncode == 65
        assert "holds what a run answered, no requests" in done.stderr

    def test_requests_in_a_file_that_once_was_an_output_are_requests(self, tmp_path: Path) -> None:
        write_jobs(tmp_path / "a.jsonl", 2)
        assert blendrun("run", "a.jsonl", "-o", "b.jsonl", *REPLAY, cwd=tmp_path).returncode == 0
        write_jobs(tmp_path / "b.jsonl", 3)
        assert blendrun("run", "b.jsonl", *REPLAY, cwd=tmp_path).returncode == 0
        assert len(ids(tmp_path / "b.answers.jsonl")) == 3


@pytest.mark.parametrize("first", [1, 2**63 - 2, 2**64 - 2, -5])
def test_a_partial_last_block_without_an_id_is_the_prompts_own(tmp_path: Path, first: int) -> None:
    lines = [
        {"id": "a", "prompt_tokens": 9, "output_tokens": 1, "block_size": 4, "hash_ids": [first, first + 1]},
        {"id": "b", "prompt_tokens": 11, "output_tokens": 1, "block_size": 4, "hash_ids": [first, first + 1]},
        {"id": "c", "prompt_tokens": 3, "output_tokens": 1, "block_size": 4, "hash_ids": []},
        {"id": "d", "prompt_tokens": 8, "output_tokens": 1, "block_size": 4, "hash_ids": [first, first + 1]},
    ]
    (tmp_path / "t").write_text("".join(json.dumps(each) + "\n" for each in lines))
    trace = read_trace(open_sources([tmp_path / "t"], tmp_path / "spool"))
    assert trace.offsets.tolist() == [0, 3, 6, 7, 9]
    (a1, a2, a), (b1, b2, b), (c,), (d1, d2) = np.split(trace.blocks, trace.offsets[1:-1])
    assert a1 == b1 == d1 and a2 == b2 == d2
    assert len({int(each) for each in (a1, a2, a, b, c)}) == 5

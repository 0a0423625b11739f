"""An S3 on loopback: inputs from it and outputs to it by fsspec's package, and every way in which that fails."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from blendrun.errors import InputInvalidError, InputMissingError, UsageError
from blendrun.events import Event, Note
from blendrun.installed import install_command
from blendrun.remote import stores, tries
from blendrun.remote.address import Address, parse_address
from blendrun.remote.fetch import fetch
from blendrun.remote.send import check_sendable
from tests.command import REPLAY, blendrun, environment, ids, line

pytestmark = pytest.mark.slow
JOBS = b"".join(line(f"id {row}", f"question {row}") + b"\n" for row in range(20))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[dict[str, str]]:
    """What the environment of a user has who has this S3."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "w0rd-of-mine",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server.stop()


@pytest.fixture
def bucket(endpoint: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A new bucket of files: its methods take paths within the store."""
    import s3fs

    for name, value in endpoint.items():
        monkeypatch.setenv(name, value)
    store = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    if store.exists("jobs-bucket"):
        store.rm("jobs-bucket", recursive=True)
    store.mkdir("jobs-bucket")
    return store


def get(key: str, folder: Path) -> tuple[bytes, list[str]]:
    events: list[Event] = []
    path = fetch(Address(f"s3://jobs-bucket/{key}"), folder, events.append)
    return path.read_bytes(), [event.text for event in events if isinstance(event, Note)]


def test_a_job_in_a_bucket_and_its_answers_there(bucket: Any, tmp_path: Path) -> None:
    bucket.pipe("jobs-bucket/in/jobs.jsonl.gz", gzip.compress(JOBS + line("bad", "x", url="/v1/none")))
    words = ("run", "s3://jobs-bucket/in/jobs.jsonl.gz", *REPLAY, "-o", "s3://jobs-bucket/out/answers.jsonl")
    done = blendrun(*words, cwd=tmp_path, env=environment())
    assert done.returncode == 3, done.stderr
    sent = bucket.cat("jobs-bucket/out/answers.jsonl")
    assert sent == (tmp_path / "answers.jsonl").read_bytes()
    assert ids(tmp_path / "answers.jsonl") == [f"id {row}" for row in range(20)]
    failed = bucket.cat("jobs-bucket/out/answers.jsonl.errors.jsonl")
    assert failed == (tmp_path / "answers.jsonl.errors.jsonl").read_bytes()
    # Sent once: what others do there later stays.
    bucket.pipe("jobs-bucket/out/answers.jsonl", b"mine")
    assert blendrun(*words, cwd=tmp_path, env=environment()).returncode == 3
    assert bucket.cat("jobs-bucket/out/answers.jsonl") == b"mine"


def test_it_is_fetched_once_and_again_when_it_changed(bucket: Any, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    bucket.pipe("jobs-bucket/x", content)
    assert get("x", tmp_path) == (content, [])
    (copy,) = tmp_path.glob("*.data")
    before = copy.stat()
    assert get("x", tmp_path) == (content, [])
    assert copy.stat() == before
    bucket.pipe("jobs-bucket/x", b"other")
    assert get("x", tmp_path)[0] == b"other"


def test_it_goes_on_where_it_stopped(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    content, asked = os.urandom(100_000), []
    bucket.pipe("jobs-bucket/x", content)
    monkeypatch.setattr(stores, "RANGE_BYTES", 30_000)
    real = s3fs.S3FileSystem.cat_file

    def broken(self: Any, path: str, start: int, end: int) -> Any:
        asked.append(start)
        if len(asked) in (2, 4):
            raise OSError("the line is dead")
        return real(self, path, start=start, end=end)

    monkeypatch.setattr(s3fs.S3FileSystem, "cat_file", broken)
    content_got, said = get("x", tmp_path)
    assert content_got == content
    assert asked == [0, 30_000, 30_000, 60_000, 60_000, 90_000]
    assert len(said) == 2


def test_what_changes_while_it_is_read_is_not_mixed(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setattr(stores, "RANGE_BYTES", 30_000)
    real, changes = s3fs.S3FileSystem.cat_file, iter(range(1, 3))

    def changing(self: Any, path: str, start: int, end: int) -> Any:
        data = real(self, path, start=start, end=end)
        if (change := next(changes, None)) is not None:
            bucket.pipe("jobs-bucket/x", bytes([change]) * 100_000)
        return data

    monkeypatch.setattr(s3fs.S3FileSystem, "cat_file", changing)
    bucket.pipe("jobs-bucket/x", b"\0" * 100_000)
    assert get("x", tmp_path)[0] == b"\2" * 100_000
    changes = iter(range(10, 1000))
    bucket.pipe("jobs-bucket/x", b"\3" * 100_000)
    with pytest.raises(InputInvalidError, match="changes while it is read"):
        get("x", tmp_path)


@pytest.mark.parametrize(
    ("key", "said"), [("none.jsonl", "is not there; check the address"), ("in", "is a folder; name the files in it")]
)
def test_what_is_not_there(bucket: Any, tmp_path: Path, key: str, said: str) -> None:
    bucket.pipe("jobs-bucket/in/x", b"x")
    with pytest.raises(InputMissingError, match=said):
        get(key, tmp_path)


def test_an_upload_that_fails_is_done_by_the_same_command(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs.jsonl").write_bytes(JOBS)
    words = ("run", "jobs.jsonl", *REPLAY, "-o", "s3://no-such-bucket/answers.jsonl")
    done = blendrun(*words, cwd=tmp_path, env=environment())
    assert done.returncode == 73, done.stderr
    assert "cannot upload to s3://no-such-bucket/answers.jsonl: it is not there" in done.stderr
    bucket.mkdir("no-such-bucket")
    done = blendrun(*words, cwd=tmp_path, env=environment())
    assert done.returncode == 0, done.stderr
    assert bucket.cat("no-such-bucket/answers.jsonl") == (tmp_path / "answers.jsonl").read_bytes()


def test_a_store_that_is_not_to_be_reached(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "TRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(InputMissingError, match=r"was not to be reached.*the same command goes on") as refused:
        get("x", tmp_path)
    assert "w0rd-of-mine" not in str(refused.value)


@pytest.mark.parametrize("address", ["s3://b/x", "gs://b/x", "az://b/x"])
def test_without_the_package_it_is_named(address: str) -> None:
    name = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}[address[:2]]
    if find_spec(name) is not None:
        check_sendable(parse_address(address))
        return
    with pytest.raises(UsageError, match=re.escape(f"{address} needs {name}: {install_command('remote')}")):
        check_sendable(parse_address(address))

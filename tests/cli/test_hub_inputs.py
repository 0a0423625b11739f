"""`hf://datasets/…`: files of a hub, here one on the loopback address; and a hub that is away."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blendrun.backends.hub_inputs import files_meant
from blendrun.errors import UsageError
from tests.command import REPLAY, blendrun, environment, lines_of

COMMIT = "a" * 40
FILES = ["README.md", "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]


@contextmanager
def hub(content: bytes) -> Iterator[str]:
    """A hub with one data set, each of whose files is `content`. Gives its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = content
            if self.path.startswith("/api/datasets/owner/name"):
                siblings = [{"rfilename": name} for name in FILES]
                body = json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": siblings}).encode()
            if "/tree/" in self.path:
                files = [{"type": "file", "path": name, "oid": "b" * 40, "size": len(content)} for name in FILES]
                body = json.dumps(files).encode()
            known = self.path.startswith(("/api/datasets/owner/name", f"/datasets/owner/name/resolve/{COMMIT}/data/"))
            self.send_response(200 if known else 404)
            body = body if known else b"{}"
            for name, value in (
                ("Content-Length", str(len(body))),
                ("ETag", f'"{blake2b(self.path.encode(), digest_size=16).hexdigest()}"'),
                ("X-Repo-Commit", COMMIT),
            ):
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815  # the name that the server looks for

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_its_files_are_fetched_once_and_read_as_any_table(tmp_path: Path) -> None:
    pq.write_table(pa.table({"problem": ["a", "b"]}), tmp_path / "content")
    words = ("run", "hf://datasets/owner/name", *REPLAY)
    with hub((tmp_path / "content").read_bytes()) as address:
        here = environment(HF_ENDPOINT=address, HF_HOME=str(tmp_path / "hf"))
        done = blendrun(*words, process=True, cwd=tmp_path, env=here)
    assert done.returncode == 0, done.stderr
    names = [line["custom_id"] for line in lines_of(tmp_path / "name.answers.jsonl")]
    assert names == ["row-1", "row-2", "2-row-1", "2-row-2"]
    # The hub has gone, and what was fetched is here.
    again = blendrun(*words, process=True, cwd=tmp_path, env=here)
    assert (again.returncode, "finished before" in again.stderr) == (0, True), again.stderr


def test_one_that_is_away_is_told(tmp_path: Path) -> None:
    away = environment(HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path / "hf"))
    done = blendrun("run", "hf://datasets/owner/name", *REPLAY, process=True, cwd=tmp_path, env=away)
    assert done.returncode == 66
    assert "hf://datasets/owner/name cannot be had from the hub" in done.stderr
    assert "name them here" in done.stderr
    wrong = blendrun("run", "hf://models/x", *REPLAY, cwd=tmp_path)
    assert (wrong.returncode, "hf://datasets/OWNER/NAME" in wrong.stderr) == (2, True)


def test_files_of_a_data_set() -> None:
    assert files_meant("hf://datasets/a/b", FILES, None) == FILES[1:]
    assert files_meant("hf://datasets/a/b", FILES, "data") == FILES[1:]
    assert files_meant("hf://datasets/a/b", FILES, "data/*00001*") == FILES[2:]
    with pytest.raises(UsageError, match=r"several parts; say which, as hf://datasets/a/b/data/train\*"):
        files_meant("hf://datasets/a/b", [*FILES, "data/test-00000-of-00001.parquet"], None)

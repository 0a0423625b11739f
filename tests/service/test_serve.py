"""`blendrun serve` through OpenAI's client: batches from their files to their answers, whatever comes between."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.answering_server import answering
from tests.service.server import URL, Server, batch, ended, ids_of, lines, reached, serving

pytest.importorskip("starlette", reason="SGLang's web framework is not installed")

KEYS = ("--api-key", "first-key", "--api-key", "second-key")
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}], "usage": {}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    store = tmp_path_factory.mktemp("serve") / "store"
    limits = ("--max-lines", "50", "--max-file-bytes", "20000", "--max-line-bytes", "4000")
    with serving(store, "--engine", "replay", *KEYS, *limits) as found:
        yield found


@pytest.fixture
def client(server: Server) -> OpenAI:
    return server.client("first-key")


class TestBatches:
    def test_from_a_file_to_its_answers(self, client: OpenAI) -> None:
        names = [f"r{place}" for place in range(5)]
        found = ended(client, batch(client, lines(names), metadata={"who": "me"}))
        assert found.status == "completed"
        counts, usage = found.request_counts, found.usage
        assert counts is not None
        assert usage is not None
        assert (counts.total, counts.completed, counts.failed, usage.output_tokens) == (5, 5, 0, 20)
        assert found.metadata == {"who": "me"}
        assert found.error_file_id is None
        assert ids_of(client, found.output_file_id) == names
        assert found.output_file_id is not None
        kept = client.files.retrieve(found.output_file_id)
        assert (kept.purpose, kept.filename) == ("batch_output", f"{found.id}_output.jsonl")
        assert kept.bytes == len(client.files.content(kept.id).read())

    def test_those_that_wait_are_one_job_and_each_has_its_own_files(self, client: OpenAI, server: Server) -> None:
        names = ["same", "ids"]
        asked = [batch(client, lines(names)) for _ in range(3)]
        found = [ended(client, each) for each in asked]
        assert [each.status for each in found] == ["completed"] * 3
        assert len({each.output_file_id for each in found}) == 3
        assert [ids_of(client, each.output_file_id) for each in found] == [names] * 3

    def test_a_line_that_fails_is_in_the_errors_file(self, client: OpenAI) -> None:
        found = ended(client, batch(client, lines(["good"]) + lines(["bad"], temperature=-3)))
        assert found.status == "completed"
        assert ids_of(client, found.output_file_id) == ["good"]
        assert found.error_file_id is not None
        error = json.loads(client.files.content(found.error_file_id).text)
        assert (error["custom_id"], error["error"]["code"]) == ("bad", "invalid_request")
        assert "line" not in error["error"]

    def test_a_batch_of_bad_lines_alone(self, client: OpenAI) -> None:
        found = ended(client, batch(client, lines(["one", "two"], temperature=-3)))
        assert found.status == "completed"
        assert ids_of(client, found.error_file_id) == ["one", "two"]

    @pytest.mark.parametrize(
        ("content", "code", "line"),
        [
            (b"nope\n", "invalid_json_line", 1),
            (b"[1]\n", "invalid_json_line", 1),
            (b'{"url": "/v1/chat/completions", "body": {}}\n', "missing_required_parameter", 1),
            (lines(["a"]) + b"\n" + lines(["a"]), "duplicate_custom_id", 3),
            (lines(["a"]).replace(b"chat/", b""), "mismatched_endpoint", 1),
            (b'{"custom_id": "a", "body": {}}\n', "missing_required_parameter", 1),
            (lines(["a"]).replace(b"POST", b"GET"), "invalid_method", 1),
            (b"\n \n", "empty_file", None),
            (lines([str(place) for place in range(51)]), "too_many_tasks", None),
            (lines(["x" * 500]), "invalid_custom_id", 1),
            (lines(["a"], user="x" * 5000), "line_too_long", 1),
            (b'{"custom_id":"a","x":' + b"[" * 300 + b"]" * 300 + b"}\n", "invalid_json_line", 1),
        ],
    )
    def test_files_that_are_no_batch(self, client: OpenAI, content: bytes, code: str, line: int | None) -> None:
        found = ended(client, batch(client, content))
        assert found.status == "failed"
        assert found.errors is not None
        assert found.errors.data is not None
        assert [(each.code, each.line) for each in found.errors.data] == [(code, line)]

    def test_lines_that_name_another_model_are_answered_and_counted(self, client: OpenAI) -> None:
        found = batch(client, lines(["a", "b"], model="gpt-4o") + lines(["c"], model="replay") + lines(["d"]))
        told = ended(client, found)
        assert ids_of(client, told.output_file_id) == ["a", "b", "c", "d"]
        assert told.model == "replay"
        note = "2 lines name another model and run on replay all the same: gpt-4o (2)"
        assert told.to_dict()["notes"] == [note]
        assert ended(client, batch(client, lines(["a"], model="default"))).to_dict()["notes"] is None

    def test_batches_that_need_two_engines_are_two_jobs(self, client: OpenAI) -> None:
        content = json.dumps({"custom_id": "v", "url": "/v1/embeddings", "body": {"input": "hi"}}).encode() + b"\n"
        file = client.files.create(file=("v.jsonl", io.BytesIO(content)), purpose="batch")
        chat = batch(client, lines(["c"]))
        vectors = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
        assert ids_of(client, ended(client, chat).output_file_id) == ["c"]
        assert ids_of(client, ended(client, vectors).output_file_id) == ["v"]

    def test_a_mark_of_order_is_no_part_of_the_first_line(self, client: OpenAI) -> None:
        found = ended(client, batch(client, b"\xef\xbb\xbf" + lines(["a", "b"])))
        assert ids_of(client, found.output_file_id) == ["a", "b"]

    def test_lists_have_pages(self, client: OpenAI) -> None:
        asked = [batch(client, lines(["a"])) for _ in range(3)]
        shown = [each.id for each in client.batches.list(limit=2)][:3]
        assert shown == [each.id for each in reversed(asked)]
        page = client.batches.list(limit=1)
        assert page.has_more
        files = client.files.list(limit=2, purpose="batch", order="asc")
        assert files.data[0].created_at <= files.data[1].created_at
        with pytest.raises(openai.NotFoundError):
            client.batches.list(after="batch_x")
        for wrong in ("limit=0", "limit=many", "limit=-4", "limit=101", "limit=1e1", f"limit={'9' * 5000}", "order=up"):
            headers = {"Authorization": "Bearer first-key"}
            assert httpx.get(f"{client.base_url}batches?{wrong}", headers=headers).status_code == 400


class TestRefused:
    def test_wrong_keys(self, server: Server) -> None:
        for key in ("wrong", "first-key2", "ключ"):
            with pytest.raises((openai.AuthenticationError, UnicodeEncodeError)):
                server.client(key).files.list()
        assert httpx.get(f"{server.address}/v1/files").status_code == 401
        assert httpx.get(f"{server.address}/v1/files", headers={"Authorization": "Basic eA=="}).status_code == 401

    def test_nothing_of_another_key_is_seen(self, client: OpenAI, server: Server) -> None:
        other = server.client("second-key")
        mine = ended(client, batch(client, lines(["a"])))
        assert mine.output_file_id is not None
        assert mine.id not in [each.id for each in other.batches.list()]
        assert not [each for each in other.files.list() if each.id in (mine.input_file_id, mine.output_file_id)]
        attempts: list[Any] = [
            lambda: other.batches.retrieve(mine.id),
            lambda: other.batches.cancel(mine.id),
            lambda: other.files.retrieve(mine.input_file_id),
            lambda: other.files.content(mine.output_file_id or ""),
            lambda: other.files.delete(mine.input_file_id),
        ]
        for attempt in attempts:
            with pytest.raises(openai.NotFoundError):
                attempt()
        with pytest.raises(openai.BadRequestError, match="there is no file"):
            other.batches.create(input_file_id=mine.input_file_id, endpoint=URL, completion_window="24h")

    def test_a_report_is_for_who_owns_all_of_its_job(self, client: OpenAI, server: Server) -> None:
        other = server.client("second-key")
        # One job of both.
        mine, theirs = batch(client, lines(["a"])), batch(other, lines(["b"]))
        ended(client, mine), ended(other, theirs)
        alone = ended(client, batch(client, lines(["c"])))

        def asked(batch: str, key: str, method: str = "GET") -> httpx.Response:
            headers = {"Authorization": f"Bearer {key}"}
            # The first page loads what pages are drawn with.
            return httpx.request(method, f"{server.address}/v1/batches/{batch}/report", headers=headers, timeout=90)

        for method in ("GET", "POST"):
            refused = asked(mine.id, "first-key", method)
            assert (refused.status_code, "other keys" in refused.text) == (404, True)
            assert asked(alone.id, "second-key", method).status_code == 404
            assert asked(alone.id, "wrong", method).status_code == 401
        assert alone.id in asked(alone.id, "first-key").text
        address = f"{server.address}{asked(alone.id, 'first-key', 'POST').json()['url']}"
        assert alone.id in httpx.get(address, timeout=90).text
        assert httpx.get(address).status_code == 404, "it was good once"
        assert httpx.get(f"{server.address}/reports/x").status_code == 404

    def test_names_are_no_paths(self, client: OpenAI, server: Server) -> None:
        kept = client.files.create(file=("../../../etc/passwd", io.BytesIO(lines(["a"]))), purpose="batch")
        assert kept.filename == "passwd"
        headers = {"Authorization": "Bearer first-key"}
        for name in ("..%2Fkey", "%2e%2e/key", "..%2f..%2fkey", f"{kept.id}%00"):
            assert httpx.get(f"{server.address}/v1/files/{name}/content", headers=headers).status_code == 404

    def test_uploads_that_are_too_large_or_none(self, client: OpenAI, server: Server) -> None:
        with pytest.raises(openai.APIStatusError) as refused:
            client.files.create(file=("x.jsonl", io.BytesIO(b"x" * 20_001)), purpose="batch")
        assert refused.value.status_code == 413
        headers = {"Authorization": "Bearer first-key"}
        huge = httpx.post(f"{server.address}/v1/files", headers=headers, files={"file": b"x" * (4 << 20)})
        assert huge.status_code == 413
        with pytest.raises(openai.BadRequestError, match="`purpose` must be batch"):
            client.files.create(file=("x.jsonl", io.BytesIO(b"x")), purpose="fine-tune")
        for content in (b"", b"no json", b"[1]", b'{"a": ' * 1000):
            assert httpx.post(f"{server.address}/v1/batches", headers=headers, content=content).status_code == 400

    @pytest.mark.parametrize(
        ("fields", "what"),
        [
            ({"endpoint": "/v1/nope"}, "endpoint"),
            ({"completion_window": "soon"}, "completion_window"),
            ({"completion_window": None}, "completion_window"),
            ({"metadata": {"a": 1}}, "metadata"),
            ({"input_file_id": ["x"]}, "input_file_id"),
            ({"endpoint": {"x": 1}}, "endpoint"),
            ({"metadata": {"a" * 65: "x"}}, "metadata"),
            ({"output_expires_after": "1d"}, "output_expires_after"),
            ({"output_expires_after": {"anchor": "created_at", "seconds": 10**30}}, "output_expires_after"),
        ],
    )
    def test_batches_that_cannot_be(self, client: OpenAI, fields: dict[str, Any], what: str) -> None:
        file = client.files.create(file=("x.jsonl", io.BytesIO(lines(["a"]))), purpose="batch")
        asked: Any = {"input_file_id": file.id, "endpoint": URL, "completion_window": "24h", **fields}
        with pytest.raises(openai.BadRequestError) as refused:
            client.batches.create(**asked)
        assert refused.value.param == what

    @pytest.mark.parametrize(
        ("fields", "what"),
        [
            ({"priority": "high"}, "priority"),
            ({"": 1}, ""),
            ({"x" * 5000: 1}, "x" * 79 + "…"),
            (
                {"output_expires_after": {"anchor": "created_at", "seconds": 86_400, "unit": "s"}},
                "output_expires_after.unit",
            ),
        ],
    )
    def test_what_nobody_heeds_is_refused_as_openai_refuses_it(
        self, client: OpenAI, fields: dict[str, Any], what: str
    ) -> None:
        file = client.files.create(file=("x.jsonl", io.BytesIO(lines(["a"]))), purpose="batch")
        with pytest.raises(openai.BadRequestError) as refused:
            client.batches.create(
                input_file_id=file.id, endpoint=URL, completion_window="24h", metadata={"a": "b"}, extra_body=fields
            )
        assert (refused.value.param, refused.value.code) == (what, "unknown_parameter")
        assert refused.value.body == {
            "message": f"Unknown parameter: '{what}'.",
            "type": "invalid_request_error",
            "param": what,
            "code": "unknown_parameter",
        }

    def test_what_an_upload_or_an_address_says_beside_what_is_heeded(self, client: OpenAI) -> None:
        headers, form = {"Authorization": "Bearer first-key"}, {"file": ("x", lines(["a"]))}

        def refused(method: str, path: str, **more: Any) -> tuple[int, str, str]:
            found = httpx.request(method, f"{client.base_url}{path}", headers=headers, **more)
            error = found.json()["error"]
            return found.status_code, error["code"], error["param"]

        unknown, twice = (400, "unknown_parameter"), (400, "duplicate_parameter")
        for name in ("mode", "expires_after", "expires_after[unit]"):
            assert refused("POST", "files", files=form, data={"purpose": "batch", name: "x"}) == (*unknown, name)
        both = {"purpose": ["batch", "batch"]}
        assert refused("POST", "files", files=form, data=both) == (*twice, "purpose")
        for path, name in (("files?status=x", "status"), ("batches?purpose=batch", "purpose"), ("models?a=b", "a")):
            assert refused("GET", path) == (*unknown, name)
        for path in ("batches?limit=1&limit=2", "files?limit=1&limit=1"):
            assert refused("GET", path) == (*twice, "limit")

    def test_a_name_that_is_there_twice(self, client: OpenAI) -> None:
        headers = {"Authorization": "Bearer first-key", "Content-Type": "application/json"}
        pair = f'"endpoint": "{URL}", "completion_window": "24h"'
        for content, name in (
            (f'{{"input_file_id": "a", "input_file_id": "b", {pair}}}', "input_file_id"),
            (f'{{"input_file_id": "a", {pair}, "metadata": {{"who": "me", "who": "you"}}}}', "who"),
        ):
            found = httpx.post(f"{client.base_url}batches", headers=headers, content=content)
            error = found.json()["error"]
            assert (found.status_code, error["code"], error["param"]) == (400, "duplicate_parameter", name)

    def test_answers_are_no_input(self, client: OpenAI) -> None:
        answers = ended(client, batch(client, lines(["a"]))).output_file_id
        assert answers is not None
        with pytest.raises(openai.BadRequestError, match="is of the purpose batch_output") as refused:
            client.batches.create(input_file_id=answers, endpoint=URL, completion_window="24h")
        assert refused.value.param == "input_file_id"

    def test_what_is_missing_is_named(self, client: OpenAI) -> None:
        headers = {"Authorization": "Bearer first-key"}
        for given, what in (({}, "input_file_id"), ({"input_file_id": "x"}, "endpoint")):
            error = httpx.post(f"{client.base_url}batches", headers=headers, json=given).json()["error"]
            assert (error["param"], error["code"]) == (what, "missing_required_parameter")
        uploads: list[tuple[dict[str, Any], str]] = [
            ({"data": {"purpose": "batch"}}, "file"),
            ({"files": {"file": ("x", b"")}}, "purpose"),
        ]
        for form, what in uploads:
            error = httpx.post(f"{client.base_url}files", headers=headers, **form).json()["error"]
            assert (error["param"], error["code"]) == (what, "missing_required_parameter")

    def test_files_that_are_to_be_deleted_by_themselves(self, client: OpenAI) -> None:
        day: Any = {"anchor": "created_at", "seconds": 86_400}
        file = client.files.create(file=("x", io.BytesIO(lines(["a"]))), purpose="batch", expires_after=day)
        assert file.expires_at == file.created_at + 86_400
        asked: Any = {"input_file_id": file.id, "endpoint": URL, "completion_window": "24h"}
        found = ended(client, client.batches.create(**asked, output_expires_after=day))
        answers = client.files.retrieve(found.output_file_id or "")
        assert answers.expires_at == answers.created_at + 86_400
        for wrong in (
            {"anchor": "now", "seconds": 86_400},
            {"anchor": "created_at", "seconds": 59},
            {"seconds": 86_400},
        ):
            given: Any = wrong
            with pytest.raises(openai.BadRequestError) as refused:
                client.files.create(file=("x", io.BytesIO(lines(["a"]))), purpose="batch", expires_after=given)
            assert refused.value.param == "expires_after"
            with pytest.raises(openai.BadRequestError) as refused:
                client.batches.create(**asked, output_expires_after=given)
            assert refused.value.param == "output_expires_after"

    def test_an_ended_batch_cannot_be_cancelled(self, client: OpenAI) -> None:
        found = ended(client, batch(client, lines(["a"])))
        with pytest.raises(openai.ConflictError, match="is completed"):
            client.with_options(max_retries=0).batches.cancel(found.id)

    def test_a_second_server_on_the_store(self, tmp_path: Path) -> None:
        with serving(tmp_path / "store", "--engine", "replay"):
            command = [sys.executable, "-m", "blendrun", "serve", "--engine", "replay", "--port", "0"]
            done = subprocess.run([*command, "--store", tmp_path / "store"], capture_output=True, text=True)
        assert done.returncode == 73
        assert "another server works on" in done.stderr

    @pytest.mark.parametrize("keys", [("--api-key", ""), ("--api-key", "a", "--api-key", " ")])
    def test_an_empty_key_lets_nobody_in(self, tmp_path: Path, keys: tuple[str, ...]) -> None:
        command = [sys.executable, "-m", "blendrun", "serve", "--engine", "replay", "--port", "0", *keys]
        done = subprocess.run([*command, "--store", tmp_path / "store"], capture_output=True, text=True, timeout=60)
        assert (done.returncode, "--api-key is empty" in done.stderr) == (2, True)

    def test_the_page_and_what_needs_no_key(self, server: Server) -> None:
        page = httpx.get(server.address)
        assert page.status_code == 200
        assert "script-src 'unsafe-inline'" in page.headers["content-security-policy"]
        assert httpx.get(f"{server.address}/health").json() == {"status": "ok"}
        assert httpx.get(f"{server.address}/v1/nope").status_code == 404


class Slow:
    """Answers so many requests, and holds all others until it is let go."""

    def __init__(self, free: int) -> None:
        self.free, self.go, self.asked = free, threading.Event(), 0
        self._guard = threading.Lock()

    def wait_for(self, asked: int) -> None:
        """Until so many requests have come."""
        until = time.monotonic() + 60
        while self.asked < asked:
            assert time.monotonic() < until
            time.sleep(0.05)

    def __call__(self, path: str, body: Any) -> Any:
        with self._guard:
            self.asked += 1
            held = self.asked > self.free
        if held:
            self.go.wait(60)
        return ANSWER


@contextmanager
def slowly(folder: Path, free: int) -> Iterator[tuple[Slow, Server, OpenAI]]:
    """A server whose engine answers so many requests, and no more until it is let go."""
    slow = Slow(free)
    with answering("m", slow) as address, serving(folder / "store", "--engine", address, *KEYS) as server:
        yield slow, server, server.client("first-key")


NAMES = [f"r{place}" for place in range(12)]
# More than a server is asked at once.
MANY = [f"r{place}" for place in range(400)]


class TestOnTheWay:
    def test_a_cancelled_batch_keeps_what_it_has_and_another_goes_on(self, tmp_path: Path) -> None:
        with slowly(tmp_path, 3) as (slow, _, client):
            first, other = batch(client, lines(MANY)), batch(client, lines(["other"]))
            slow.wait_for(4)
            assert client.batches.cancel(first.id).status == "cancelling"
            slow.go.set()
            found = ended(client, first)
            assert found.status == "cancelled"
            answered = ids_of(client, found.output_file_id)
            assert len(answered) >= 2
            assert set(answered) <= set(MANY)
            assert found.error_file_id is None
            assert ids_of(client, ended(client, other).output_file_id) == ["other"]

    def test_the_file_of_a_batch_that_goes_on_stays(self, tmp_path: Path) -> None:
        with slowly(tmp_path, 0) as (slow, _, client):
            asked = batch(client, lines(NAMES))
            slow.wait_for(1)
            with pytest.raises(openai.ConflictError, match="still to be answered from this file"):
                client.with_options(max_retries=0).files.delete(asked.input_file_id)
            slow.go.set()
            ended(client, asked)
            assert client.files.delete(asked.input_file_id).deleted

    def test_one_that_expires_before_its_turn_has_an_error_for_each_request(self, tmp_path: Path) -> None:
        with slowly(tmp_path, 0) as (slow, _, client):
            running = batch(client, lines(NAMES))
            slow.wait_for(1)
            late = batch(client, lines(["l"]), window="1s")
            time.sleep(1.5)
            slow.go.set()
            assert ended(client, running).status == "completed"
            found = ended(client, late)
            assert (found.status, ids_of(client, found.error_file_id)) == ("expired", ["l"])

    def test_who_runs_the_jobs_is_stopped_and_what_it_had_is_kept(self, tmp_path: Path) -> None:
        with slowly(tmp_path, 4) as (slow, server, client):
            asked = batch(client, lines(MANY))
            reached(client, asked, ("in_progress",), completed=3)
            host = Path(f"/proc/{server.process.pid}/task").glob("*/children")
            (pid,) = [int(word) for path in host for word in path.read_text().split()]
            os.kill(pid, signal.SIGTERM)
            slow.go.set()
            assert ids_of(client, ended(client, asked).output_file_id) == MANY

    def test_a_server_that_is_killed_goes_on_where_it_was(self, tmp_path: Path) -> None:
        slow = Slow(4)
        with answering("m", slow) as address:
            words = ("--engine", address, *KEYS)
            with serving(tmp_path / "store", *words) as server:
                client = server.client("first-key")
                running = batch(client, lines(NAMES))
                reached(client, running, ("in_progress",), completed=3)
                # One that has not had its turn, and one whose file is not a batch.
                waiting, bad = batch(client, lines(["w"])), batch(client, b"nope\n")
                # Who ran its job sees that it is gone, and ends with what is in flight.
                threading.Timer(0.3, slow.go.set).start()
                server.end(signal.SIGKILL)
            with serving(tmp_path / "store", *words) as server:
                client = server.client("first-key")
                assert ids_of(client, ended(client, running).output_file_id) == NAMES
                assert ids_of(client, ended(client, waiting).output_file_id) == ["w"]
                assert ended(client, bad).status == "failed"
                assert server.end() == 0
        # What was answered before was not asked again: all that was in flight is, at most.
        assert slow.asked <= 2 * len(NAMES) + 1 - 3

    def test_a_signal_ends_the_server_and_it_goes_on_later(self, tmp_path: Path) -> None:
        slow = Slow(4)
        with answering("m", slow) as address:
            words = ("--engine", address, *KEYS)
            with serving(tmp_path / "store", *words) as server:
                client = server.client("first-key")
                running = batch(client, lines(NAMES))
                reached(client, running, ("in_progress",), completed=3)
                threading.Timer(0.5, slow.go.set).start()
                assert server.end() == 0
            with serving(tmp_path / "store", *words) as server:
                client = server.client("first-key")
                assert ids_of(client, ended(client, running).output_file_id) == NAMES

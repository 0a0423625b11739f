"""Servers are strangers: whatever they send, each line has an answer or an error, once, and can be read again."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blendrun.backoff import pause, retry_after
from blendrun.engine.base import Engine
from blendrun.engine.http.client import http_client
from blendrun.engine.http.engine import HttpEngine
from blendrun.engine.http.server import ServerAwayError, ServerInfo, look
from blendrun.engine.http.settings import HttpSettings
from blendrun.errors import EngineUnavailableError
from blendrun.store.summary import Summary
from tests.runner.faulty_server import Fault, Seen, Status, answer, faulty_server
from tests.runner.runner_job import line, lines_of, run, write

COUNT = 4
IDS = [f"id {row}" for row in range(COUNT)]
ODD = "question 1"
ESCAPE = "\x1b]0;title\x07"


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return write(tmp_path / "jobs.jsonl", *(line(name, f"question {row}", n=1) for row, name in enumerate(IDS)))


def on(address: str, out: Path, **given: Any) -> Callable[[], Engine]:
    chosen = HttpSettings(**{"concurrency": 4, "wait": 1.0, "tries": 2, "backoff": 0.01} | given)
    return lambda: HttpEngine(address, chosen, out.parent / "server.log")


def run_with(fault: Fault, jobs: Path, out: Path, **given: Any) -> tuple[Summary, Seen]:
    """One request of the job meets `fault`."""
    with faulty_server(lambda text, _: fault if text == ODD else None) as (address, seen):
        return run(out, jobs, engine=on(address, out, **given)), seen


def resumed(jobs: Path, out: Path) -> Summary:
    """From the journal alone: nobody is there to be asked."""
    out.unlink()
    return run(out, jobs, engine=on("http://127.0.0.1:1", out, wait=0.0))


def good(**more: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(answer(ODD))
    return body | more


def usage(**counts: Any) -> bytes:
    return json.dumps(good(usage={"prompt_tokens": 10, "completion_tokens": 3} | counts)).encode()


def error_of(out: Path) -> str:
    (failed,) = lines_of(Path(f"{out}.errors.jsonl"))
    assert (failed["custom_id"], failed["error"]["code"]) == ("id 1", "engine_error")
    message: str = failed["error"]["message"]
    return message


def deep(levels: int) -> bytes:
    return json.dumps(good()).encode()[:-1] + b', "deep": ' + b"[" * levels + b"]" * levels + b"}"


class TestBytes:
    @pytest.mark.parametrize(
        "content",
        [
            json.dumps(good(), indent=2).encode() + b"\n",
            json.dumps(good(), indent="\t").replace("\n", "\r\n").encode(),
            b"\r\n\t " + json.dumps(good()).encode() + b"\n\n",
            json.dumps(good(system_fingerprint="a\u2028b\u2029c\x85d\\u2028"), ensure_ascii=False).encode(),
        ],
        ids=["indented", "tabs and CRLF", "ends around it", "other line ends in a text"],
    )
    def test_an_answer_is_one_line_and_its_values_are_what_they_were(
        self, jobs: Path, out: Path, content: bytes
    ) -> None:
        summary, seen = run_with(Status(200, content), jobs, out)
        assert summary.exit_code == 0
        before = out.read_bytes()
        answers = [json.loads(text) for text in before.decode().splitlines()]
        assert [each["custom_id"] for each in answers] == IDS
        assert answers[1]["response"]["body"] == json.loads(content)
        assert resumed(jobs, out).exit_code == 0
        assert out.read_bytes() == before
        assert len(seen.asked) == COUNT

    @pytest.mark.parametrize(
        ("content", "headers", "said"),
        [
            (answer("x" * 90_000), {}, "more than 65,536 bytes"),
            (gzip.compress(answer("x" * 9_000_000)), {"Content-Encoding": "gzip"}, "more than 65,536 bytes"),
            (zlib.compress(answer("x" * 9_000_000)), {"Content-Encoding": "deflate"}, "more than 65,536 bytes"),
            (b"?", {"Content-Encoding": "br"}, "packed as 'br', which was not asked for"),
            (gzip.compress(answer("x"))[:-9], {"Content-Encoding": "gzip"}, "that breaks off"),
            (b"\x1f\x8bno", {"Content-Encoding": "gzip"}, "that is not sound"),
            (deep(300), {}, "more than 254 levels"),
            (deep(1500), {}, "more than 254 levels"),
            (answer("x")[:-1] + b',"many":[' + b"{}," * 20_000 + b"0]}", {}, "too many values to read"),
            (answer("x")[:-1] + b',"a":1e999}', {}, "that is no JSON (number is infinity"),
        ],
        ids=["long", "gzip", "deflate", "br", "half", "no gzip", "deep", "deeper", "many", "infinite"],
    )
    def test_what_nobody_could_hold_or_read_is_an_error_line(
        self, jobs: Path, out: Path, content: bytes, headers: dict[str, str], said: str
    ) -> None:
        summary, _ = run_with(Status(200, content, headers), jobs, out, answer_bytes=1 << 16)
        assert summary.exit_code == 3
        assert [each["custom_id"] for each in lines_of(out)] == ["id 0", "id 2", "id 3"]
        assert said in error_of(out)

    def test_packed_answers_are_unpacked_all_of_them(self, jobs: Path, out: Path) -> None:
        content, half = answer(ODD), len(answer(ODD)) // 2
        members = gzip.compress(content[:half]) + gzip.compress(content[half:])
        raw = zlib.compressobj(wbits=-15)
        for packed, name in ((members, "gzip"), (raw.compress(content) + raw.flush(), "deflate")):
            summary, _ = run_with(Status(200, packed, {"Content-Encoding": name}), jobs, out)
            assert summary.exit_code == 0
            assert lines_of(out)[1]["response"]["body"] == good()
            out.unlink()
            (Path(f"{out}.blendrun") / "journal").unlink()

    def test_an_error_of_any_length_is_kept_in_short_and_without_control_characters(
        self, jobs: Path, out: Path
    ) -> None:
        for length, start in ((9_000, "\\\\x1b]0;title\\\\x07no x"), (9_000_000, '{\\"error\\": ')):
            said = json.dumps({"error": {"message": f"{ESCAPE}no {'x' * length}"}}).encode()
            assert run_with(Status(400, said), jobs, out)[0].exit_code == 3
            errors = Path(f"{out}.errors.jsonl").read_text()
            assert len(errors) < 20_000
            assert start in errors and '"\\u001b' not in errors
            out.unlink()
            (Path(f"{out}.blendrun") / "journal").unlink()
        run_with(Status(500, f"a\n{ESCAPE}b".encode()), jobs, out, tries=2)
        log = (out.parent / "server.log").read_text()
        assert "a\\x0a\\x1b]0;title\\x07b" in log


class TestNumbers:
    @pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
    def test_a_count_that_cannot_be_is_not_known(self, tmp_path: Path, out: Path, name: str) -> None:
        odd: list[object] = [3_000_000_000, 2**63, 10**30, -7, True, 1.5, "7", None, [1], {}]
        jobs = write(tmp_path / "jobs.jsonl", *(line(f"id {row}", str(row)) for row in range(len(odd) + 1)))
        counts = dict(enumerate(odd))
        with faulty_server(
            lambda text, _: Status(200, usage(**({name: counts[int(text)]} if int(text) in counts else {})))
        ) as (address, seen):
            summary = run(out, jobs, engine=on(address, out))
        known = {"prompt_tokens": 10 * 11, "completion_tokens": 3 * 11}
        known[name] //= 11
        assert summary.exit_code == 0
        assert (summary.tokens.prompt, summary.tokens.output) == tuple(known.values())
        assert resumed(jobs, out).tokens == summary.tokens
        assert len(seen.asked) == 11

    def test_no_more_is_cached_than_was_asked(self, jobs: Path, out: Path) -> None:
        summary, _ = run_with(Status(200, usage(prompt_tokens_details={"cached_tokens": 2**31 - 1})), jobs, out)
        assert summary.tokens.cached == 4 * (COUNT - 1) + 10

    @pytest.mark.parametrize(
        "asked", ["1000000000", "inf", "1e400", "nan", "Fri, 31 Dec 9999 23:59:59 GMT", "9" * 5000]
    )
    def test_a_server_that_refuses_everything_is_not_waited_for_longer_than_was_said(
        self, jobs: Path, out: Path, asked: str
    ) -> None:
        assert pause(1, 0.01, retry_after(asked), 0.2) <= 0.2
        with (
            faulty_server(lambda *_: Status(429, headers={"Retry-After": asked})) as (address, _),
            pytest.raises(EngineUnavailableError, match=r"refused every request for 0\.2 s"),
        ):
            run(out, jobs, engine=on(address, out, wait=0.2))


class TestShapes:
    def test_an_answer_to_something_else_is_an_error_line_with_the_reason(self, tmp_path: Path, out: Path) -> None:
        wrong: list[tuple[object, str, int]] = [
            (good(choices=[{"index": 0, "finish_reason": "stop"}]), "without `message` in choice 0", 2),
            (good(choices=[{"message": "hello"}]), "without `message` in choice 0", 2),
            (good(choices=[{"text": "hello"}], object="text_completion"), "its object is 'text_completion'", 2),
            (good(choices=[{"delta": {}}], object="chat.completion.chunk"), "without `message`", 2),
            (good(choices=[{"message": {}}] * 2), "2 of the 1 choices", 1),
            (good(choices={}), "without choices", 2),
            ({"object": "list", "data": []}, "without choices", 2),
            ([], "no JSON object", 2),
            (7, "no JSON object", 2),
        ]
        jobs = write(tmp_path / "jobs.jsonl", *(line(f"id {row}", str(row)) for row in range(len(wrong))))
        with faulty_server(lambda text, _: Status(200, json.dumps(wrong[int(text)][0]).encode())) as (address, seen):
            summary = run(out, jobs, engine=on(address, out))
        assert (summary.exit_code, summary.counts.failed) == (3, len(wrong))
        for row, failed in enumerate(lines_of(Path(f"{out}.errors.jsonl"))):
            assert wrong[row][1] in failed["error"]["message"]
            assert seen.times[str(row)] == wrong[row][2], "what would come again is not paid for again"

    def test_fewer_choices_than_asked_for_are_none(self, tmp_path: Path, out: Path) -> None:
        jobs = write(tmp_path / "jobs.jsonl", line("id 1", ODD, n=3), line("id 0", "question 0"))
        summary, _ = run_with(Status(200, answer(ODD)), jobs, out)
        assert summary.exit_code == 3
        assert "1 of the 3 choices asked for" in error_of(out)

    def test_one_kind_of_wrong_answer_to_all_lines_is_as_many_error_lines(self, tmp_path: Path, out: Path) -> None:
        jobs = write(tmp_path / "jobs.jsonl", *(line(f"id {row}", f"question {row}") for row in range(30)))
        without = json.dumps(good(choices=[{"index": 0}])).encode()
        with faulty_server(lambda *_: Status(200, without)) as (address, _):
            summary = run(out, jobs, engine=on(address, out))
        assert (summary.exit_code, summary.counts.failed) == (3, 30)

    def test_words_of_servers_are_counted_in_bounds(self, tmp_path: Path, out: Path) -> None:
        jobs = write(tmp_path / "jobs.jsonl", *(line(f"id {row}", f"question {row}") for row in range(150)))

        def script(text: str, times: int) -> Fault:
            reason = f"{text}{ESCAPE}{'x' * 1000}"
            return Status(200, json.dumps(good(choices=[{"message": {}, "finish_reason": reason}])).encode())

        with faulty_server(script) as (address, _):
            summary = run(out, jobs, engine=on(address, out))
        assert summary.finish_reasons["other"] == 50
        assert len(summary.finish_reasons) == 101
        assert max(map(len, summary.finish_reasons)) < 100
        assert all(map(str.isprintable, summary.finish_reasons))


ODD_VALUES: list[object] = [7, 0, -1, True, None, "x", "9" * 5000, 1.5, [7], [[7]], {"x": 7}, 2**70, {}, "\x1b[2J"]


def odd_pages(value: object) -> dict[str, dict[str, Any]]:
    """What servers of each kind say of themselves, by path, with `value` in every place."""
    return {
        "sglang": {"/server_info": dict.fromkeys(SGLANG_NAMES, value)},
        "vllm": {"/version": {"version": value}, "/metrics": value},
        "llamacpp": {"/props": dict.fromkeys(("total_slots", "build_info", "default_generation_settings"), value)},
    }


def look_at(address: str) -> ServerInfo:
    async def once() -> ServerInfo:
        async with http_client(address) as client:
            return await look(client)

    return asyncio.run(once())


class TestFacts:
    """What cannot be read of what a server says of itself is not known."""

    def look(self, **server: Any) -> ServerInfo:
        with faulty_server(**server) as (address, _):
            return look_at(address)

    def test_odd_values_wherever_a_number_a_word_or_an_object_is_expected(self) -> None:
        models: list[Any] = []
        pages: dict[str, bytes] = {}
        with faulty_server(models=models, pages=pages) as (address, _):
            for value in ODD_VALUES:
                for owner, said in odd_pages(value).items():
                    models[:] = [{"id": "m", "owned_by": owner, "max_model_len": value}]
                    pages |= {path: json.dumps(each).encode() for path, each in said.items()}
                    found = look_at(address)
                    assert found.models == ("m",)
                    for number in (found.context_length, found.kv_tokens, found.max_running, found.chunk, found.tensor):
                        assert number is None or (type(number) is int and 0 < number < 2**31)
                    assert found.version is None or (found.version.isprintable() and len(found.version) <= 80)
                    assert all(note.isprintable() and len(note) < 300 for note in found.notes)

    def test_odd_lists_of_models(self) -> None:
        pages: dict[str, bytes] = {}
        with faulty_server(pages=pages) as (address, _):
            for value in ODD_VALUES:
                for content in (value, {"data": value}, {"data": [value]}, {"data": [{"id": value}]}):
                    pages["/v1/models"] = json.dumps(content).encode()
                    try:
                        found = look_at(address)
                    except (ServerAwayError, EngineUnavailableError):
                        continue
                    assert all(isinstance(name, str) and len(name) <= 512 for name in found.models)

    def test_pages_without_end_or_that_are_packed_oddly(self) -> None:
        model = {"id": "m", "owned_by": "vllm"}
        labels = b"vllm:cache_config_info{" + b'a="b",' * 100_000 + b"a" * 2_000_000 + b'num_gpu_blocks="7"} 1\n'
        assert self.look(models=[model], pages={"/metrics": labels, "/version": b"{" * 100_000}).kv_tokens is None
        with pytest.raises(EngineUnavailableError, match="does not list models: it gives more than"):
            self.look(pages={"/v1/models": b" " * (5 << 20)})
        assert len(self.look(models=[{"id": f"m{row}"} for row in range(3000)]).models) == 1000


SGLANG_NAMES = (
    "internal_states",
    "enable_cache_report",
    "schedule_policy",
    "version",
    "context_length",
    "max_total_num_tokens",
    "max_running_requests",
    "chunked_prefill_size",
    "tp_size",
    "pp_size",
    "enable_mixed_chunk",
)

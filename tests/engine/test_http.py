"""What an exchange with a server means, and what is sent."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import Any

import orjson
import pytest

from blendrun.backoff import pause, retry_after
from blendrun.endpoints.base import Usage
from blendrun.endpoints.registry import ENDPOINTS
from blendrun.engine.base import Planned, WorkItem
from blendrun.engine.http.answer import NoAnswerError, answer_of, refusal_of
from blendrun.engine.http.body import ask
from blendrun.engine.http.limit import Limit
from blendrun.engine.http.retry import Verdict, meaning_of
from blendrun.engine.http.settings import HttpSettings, parse_servers
from blendrun.errors import UsageError

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def item(url: str, plan: Planned | None = None, **body: Any) -> WorkItem:
    prompt = {"messages": [{"role": "user", "content": "x" * 40}]} if url == CHAT else {"prompt": "x" * 40}
    return WorkItem(0, url, orjson.dumps(prompt | body), plan=plan)


def sent(work: WorkItem, context: int | None = 100) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(ask(work, ("base", "adapter"), "base", context).content)
    return body


class TestAddresses:
    def test_are_base_addresses_without_the_path_that_openai_clients_want(self) -> None:
        assert parse_servers("http://a:1/v1, https://b.example/llm/") == ("http://a:1", "https://b.example/llm")

    def test_a_word_is_none(self) -> None:
        assert parse_servers("sglang") == ()

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ("http://a:port", "Port"),
            ("ftp://a", "such as http://"),
            ("http://", "such as http://"),
            ("http://user:secret@a", "BLENDRUN_API_KEY"),
            ("http://a/v1?key=1", "what follows the path"),
            ("http://a:1,http://a:1/v1", "twice"),
        ],
    )
    def test_what_is_wrong_is_said(self, given: str, said: str) -> None:
        with pytest.raises(UsageError, match=said) as error:
            parse_servers(given)
        assert "secret" not in str(error.value)

    @pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"concurency": 4}, {"tries": "many"}, {"wait": -1}])
    def test_settings_that_cannot_be_are_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(UsageError, match="--engine-arg for servers"):
            HttpSettings.from_arguments(wrong)


class TestMeaning:
    @pytest.mark.parametrize(
        ("status", "meaning"),
        [
            (200, Verdict.ANSWERED),
            (400, Verdict.REFUSED),
            (404, Verdict.REFUSED),
            (422, Verdict.REFUSED),
            (302, Verdict.REFUSED),
            (401, Verdict.FORBIDDEN),
            (429, Verdict.BUSY),
            (503, Verdict.BUSY),
            (502, Verdict.BUSY),
            (500, Verdict.FAILED),
            (408, Verdict.FAILED),
        ],
    )
    def test_of_a_status(self, status: int, meaning: Verdict) -> None:
        assert meaning_of(status) is meaning

    def test_pauses_double_up_to_half_a_minute_and_differ(self) -> None:
        for tries, longest in ((1, 0.5), (2, 1.0), (4, 4.0), (30, 30.0), (2000, 30.0)):
            drawn = [pause(tries, 0.5) for _ in range(200)]
            assert longest / 2 <= min(drawn) < max(drawn) <= longest
            assert max(drawn) - min(drawn) > longest / 4

    def test_a_server_is_given_the_time_it_asks_for(self) -> None:
        assert pause(1, 0.5, 7.0) == 7.0
        assert pause(1, 0.5, 1e9) == 3600.0
        assert retry_after("2.5") == 2.5
        assert retry_after("-3") == 0.0
        assert retry_after(formatdate(time.time() + 36_000, usegmt=True)) == pytest.approx(36_000, abs=3600)
        assert retry_after("Mon, 01 Jan 1990 00:00:00 GMT") == 0.0
        for unreadable in (None, "", "soon", "99999999999999999999 GMT"):
            assert retry_after(unreadable) is None


class TestAnswers:
    def body(self, **more: Any) -> bytes:
        return orjson.dumps({"choices": [{"finish_reason": "length", "message": {"content": "x"}}], **more})

    def test_cached_tokens_as_servers_tell_them(self) -> None:
        usage = {"prompt_tokens": 10, "completion_tokens": 3}
        cached = {"prompt_tokens_details": {"cached_tokens": 7}}
        assert answer_of(1, ENDPOINTS[CHAT], self.body(usage=usage | cached)).usage == Usage(10, 7, 3)
        assert answer_of(1, ENDPOINTS[CHAT], self.body(usage=usage, timings={"cache_n": 5})).usage == Usage(10, 5, 3)
        # vLLM without --enable-prompt-tokens-details.
        assert answer_of(1, ENDPOINTS[CHAT], self.body(usage=usage | {"prompt_tokens_details": None})).usage == Usage(
            10, 0, 3
        )
        assert answer_of(1, ENDPOINTS[CHAT], self.body()).usage == Usage()

    @pytest.mark.parametrize(
        "content",
        [b"", b"<html>", b"[]", b'"x"', b'{"choices": []}', b'{"choices": [1]}', b'{"error": {"message": "out"}}'],
    )
    def test_what_is_none(self, content: bytes) -> None:
        with pytest.raises(NoAnswerError):
            answer_of(0, ENDPOINTS[CHAT], content)

    def test_one_that_the_server_cut_off_is_none(self) -> None:
        with pytest.raises(NoAnswerError, match="ended the request"):
            answer_of(0, ENDPOINTS[CHAT], orjson.dumps({"choices": [{"finish_reason": "abort"}]}))

    @pytest.mark.parametrize(
        ("content", "code", "said"),
        [
            (b'{"error": {"message": "bad field", "code": 400}}', "invalid_request", "bad field"),
            (b'{"object": "error", "message": "bad field"}', "invalid_request", "bad field"),
            (b'{"detail": [{"loc": ["body"]}]}', "invalid_request", '[{"loc":["body"]}]'),
            (b"plain words", "invalid_request", "plain words"),
            (b"", "invalid_request", "the server answers HTTP 400"),
            (
                b'{"message": "The input (9 tokens) is longer than the model\'s context length (8 tokens)."}',
                "context_length_exceeded",
                "The input (9 tokens)",
            ),
            (
                b'{"error": {"message": "This model\'s maximum context length is 8 tokens."}}',
                "context_length_exceeded",
                "This model",
            ),
            (
                b'{"error": {"message": "the request exceeds the available context size"}}',
                "context_length_exceeded",
                "the request",
            ),
        ],
    )
    def test_refusals_have_a_code_and_the_servers_words(self, content: bytes, code: str, said: str) -> None:
        result = refusal_of(3, 400, content)
        assert (result.row, result.status_code, result.error_code) == (3, 400, code)
        assert result.error_message.startswith(said)
        assert orjson.loads(result.body)["error"]["code"] == code


class TestAsked:
    def test_only_models_that_are_served(self) -> None:
        assert sent(item(CHAT, model="gpt-9"))["model"] == "base"
        assert sent(item(CHAT))["model"] == "base"
        assert sent(item(CHAT, model="adapter"))["model"] == "adapter"

    def test_null_is_left_out(self) -> None:
        assert "stop" not in sent(item(CHAT, stop=None))

    def test_an_answer_that_goes_on_is_begun_by_no_template(self) -> None:
        assert sent(item(CHAT, continue_final_message=True))["add_generation_prompt"] is False
        assert "add_generation_prompt" not in sent(item(CHAT, continue_final_message=False))

    def test_a_completion_that_names_no_length_has_the_context(self) -> None:
        assert sent(item(TEXT, Planned(0, 5, 0, 30)))["max_tokens"] == 70
        # Not counted: a guess, which is lowered where the server says that it is too much.
        guess = ask(item(TEXT), ("base",), "base", 200)
        assert 100 <= orjson.loads(guess.content)["max_tokens"] < 200
        less = guess.less()
        assert less is not None
        assert 80 <= orjson.loads(less.content)["max_tokens"] < 160
        assert ask(item(TEXT, Planned(0, 5, 0, 30)), ("base",), "base", 200).less() is None
        assert "max_tokens" not in sent(item(TEXT), None)
        assert "max_tokens" not in sent(item(CHAT, Planned(0, 5, 0, 30)))

    def test_no_more_than_the_context_leaves_is_asked_for(self) -> None:
        plan = Planned(0, 5, 0, 30)
        assert sent(item(CHAT, plan, max_completion_tokens=99))["max_completion_tokens"] == 70
        assert sent(item(CHAT, plan, max_tokens=20))["max_tokens"] == 20
        # Too long a prompt is the server's to refuse.
        assert sent(item(CHAT, Planned(0, 5, 0, 130), max_tokens=20))["max_tokens"] == 20

    def test_tokens_are_those_of_the_plan_or_a_guess(self) -> None:
        assert ask(item(CHAT, Planned(0, 5, 0, 30), n=2), (), "base", None).tokens == 40
        assert ask(item(CHAT, max_tokens=7), (), "base", None).tokens == 10 + 7


class TestLimit:
    def test_tokens_and_requests_bound_what_is_in_flight(self) -> None:
        async def main() -> None:
            limit = Limit(2, 100)
            await limit.enter(60)
            third = asyncio.ensure_future(limit.enter(50))
            await asyncio.sleep(0.01)
            assert not third.done()
            await limit.leave(60, answered=True)
            await asyncio.wait_for(third, 1)
            await limit.leave(50, answered=True)
            # One that is too large goes alone.
            await asyncio.wait_for(limit.enter(1000), 1)

        asyncio.run(main())

    def test_it_is_halved_once_an_overload_and_grows_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def main() -> None:
            limit = Limit(16)
            for _ in range(16):
                await limit.enter(1)
            for _ in range(16):
                limit.too_many()
            assert limit.room == 8
            for _ in range(8):
                await limit.leave(1, answered=True)
            assert limit.room == 8 or limit.room == 9
            for _ in range(400):
                await limit.leave(1, answered=True)
            assert limit.room == 16

        asyncio.run(main())

    def test_one_always_goes(self) -> None:
        async def main() -> None:
            limit = Limit(1)
            await limit.enter(1)
            limit.too_many()
            await limit.leave(1, answered=False)
            await asyncio.wait_for(limit.enter(1), 1)

        asyncio.run(main())

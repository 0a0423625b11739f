"""Runs on servers that refuse, fail, hang up, stall and go away: every line once, and the right ones blamed."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blendrun.engine.base import Engine
from blendrun.engine.http.engine import HttpEngine
from blendrun.engine.http.settings import HttpSettings
from blendrun.errors import EngineUnavailableError, UsageError
from blendrun.events import ignore
from blendrun.runner.replica import Patience
from blendrun.runner.run import execute
from blendrun.store.summary import Summary
from tests.runner.faulty_server import MODEL, Fault, Half, HangUp, Seen, Stall, Status, faulty_server
from tests.runner.runner_job import line, lines_of, run, settings, write

COUNT = 24
TEXTS = [f"question {row}" for row in range(COUNT)]
IDS = [f"id {row}" for row in range(COUNT)]
LINES = [line(name, text) for name, text in zip(IDS, TEXTS, strict=True)]


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return write(tmp_path / "jobs.jsonl", *LINES)


def on(address: str, out: Path, **given: Any) -> Callable[[], Engine]:
    chosen = HttpSettings(**{"concurrency": 4, "wait": 10.0, "tries": 3, "backoff": 0.05} | given)
    return lambda: HttpEngine(address, chosen, out.parent / "server.log")


def errors_of(out: Path) -> dict[str, dict[str, Any]]:
    path = Path(f"{out}.errors.jsonl")
    return {each["custom_id"]: each for each in lines_of(path)} if path.exists() else {}


def first_times(fault: Fault, times: int, every: int = 1) -> Callable[[str, int], Fault | None]:
    """The fault the first few times that a text is asked, of every so manieth text."""
    return lambda text, before: fault if int(text.split()[1]) % every == 0 and before < times else None


def test_answers_come_from_the_server_in_the_order_of_the_job(jobs: Path, out: Path) -> None:
    with faulty_server() as (address, seen):
        summary = run(out, jobs, engine=on(address, out, concurrency=1))
    assert summary.exit_code == 0
    assert seen.asked == TEXTS
    assert {body["model"] for body in seen.bodies} == {MODEL}
    answers = lines_of(out)
    assert [each["custom_id"] for each in answers] == IDS
    assert [each["response"]["body"]["choices"][0]["message"]["content"] for each in answers] == [
        f"about {text}" for text in TEXTS
    ]
    assert (summary.tokens.prompt, summary.tokens.cached, summary.tokens.output) == (10 * COUNT, 4 * COUNT, 3 * COUNT)
    assert summary.platform == "server"


def test_it_has_no_more_at_once_than_was_said(jobs: Path, out: Path) -> None:
    with faulty_server(work=0.05) as (address, seen):
        run(out, jobs, engine=on(address, out, concurrency=5))
    assert seen.most == 5


@pytest.mark.parametrize(
    "fault",
    [
        Status(429),
        Status(503, b"loading"),
        Status(502, b"<html>bad gateway</html>"),
        Status(500, b'{"error": {"message": "inside"}}'),
        Status(200, b"no json"),
        Status(200, b'{"choices": []}'),
        HangUp(),
        HangUp(reset=True),
        Half(),
        Stall(),
    ],
    ids=str,
)
def test_what_passes_costs_no_answer(jobs: Path, out: Path, fault: Fault) -> None:
    with faulty_server(first_times(fault, 1, every=6)) as (address, seen):
        summary = run(out, jobs, engine=on(address, out, timeout=1.0))
    assert summary.exit_code == 0
    assert [each["custom_id"] for each in lines_of(out)] == IDS
    assert seen.times == Counter({text: 2 if row % 6 == 0 else 1 for row, text in enumerate(TEXTS)})


def test_a_busy_server_is_asked_as_often_as_it_takes_but_with_less_at_once(jobs: Path, out: Path) -> None:
    most = 2
    refused = 0
    running, lock = [0], threading.Lock()

    def script(text: str, before: int) -> Fault | None:
        nonlocal refused
        with lock:
            if running[0] >= most:
                refused += 1
                return Status(429, headers={"Retry-After": "0"})
            running[0] += 1
        time.sleep(0.05)
        with lock:
            running[0] -= 1
        return None

    with faulty_server(script) as (address, _):
        summary = run(out, jobs, engine=on(address, out, concurrency=16, tries=1))
    assert summary.exit_code == 0
    assert len(lines_of(out)) == COUNT
    assert 0 < refused < 8 * COUNT


def test_retry_after_is_waited_for(jobs: Path, out: Path) -> None:
    asked: dict[str, list[float]] = {}

    def script(text: str, before: int) -> Fault | None:
        asked.setdefault(text, []).append(time.monotonic())
        return Status(429, headers={"Retry-After": "1"}) if text == TEXTS[3] and before == 0 else None

    with faulty_server(script) as (address, _):
        assert run(out, jobs, engine=on(address, out)).exit_code == 0
    first, second = asked[TEXTS[3]]
    assert second - first >= 1.0


@pytest.mark.parametrize(
    ("fault", "code", "said", "times"),
    [
        (Status(400, b'{"error": {"message": "no such field"}}'), "invalid_request", "no such field", 1),
        (Status(400, b'{"message": "longer than the context length"}'), "context_length_exceeded", "longer", 1),
        (Status(500, b'{"error": {"message": "inside"}}'), "engine_error", "inside", 3),
        (HangUp(), "engine_error", "the connection was cut", 3),
        (Half(), "engine_error", "the connection was cut", 3),
        (Stall(), "request_timeout", "no answer within 1 s, 2 times", 2),
    ],
    ids=str,
)
def test_a_request_that_is_to_blame_is_an_error_line_and_costs_no_other(
    jobs: Path, out: Path, fault: Fault, code: str, said: str, times: int
) -> None:
    bad = {TEXTS[2], TEXTS[17]}
    with faulty_server(lambda text, _: fault if text in bad else None) as (address, seen):
        summary = run(out, jobs, engine=on(address, out, timeout=1.0))
    assert summary.exit_code == 3
    assert [each["custom_id"] for each in lines_of(out)] == [name for name in IDS if name not in ("id 2", "id 17")]
    failed = errors_of(out)
    assert sorted(failed) == ["id 17", "id 2"]
    for error in failed.values():
        assert error["error"]["code"] == code
        assert said in error["error"]["message"]
    assert {seen.times[text] for text in bad} == {times}


def test_a_server_that_fails_everything_is_given_up_before_all_lines_are_errors(jobs: Path, out: Path) -> None:
    with faulty_server(lambda *_: Status(500, b"broken")) as (address, _):
        with pytest.raises(EngineUnavailableError, match=r"failed 11 requests in a row: HTTP 500: broken"):
            run(out, jobs, engine=on(address, out, tries=1))
        assert not out.exists()
    with faulty_server() as (address, _):
        summary = run(out, jobs, engine=on(address, out), retry_errors=True)
    assert summary.exit_code == 0
    assert [each["custom_id"] for each in lines_of(out)] == IDS


def test_a_server_that_refuses_everything_is_given_up(jobs: Path, out: Path) -> None:
    with (
        faulty_server(lambda *_: Status(429, b'{"error": {"message": "quota"}}')) as (address, _),
        pytest.raises(EngineUnavailableError, match=r"refused every request for 1 s: HTTP 429: quota"),
    ):
        run(out, jobs, engine=on(address, out, wait=1.0))


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_said_at_once(jobs: Path, out: Path, status: int) -> None:
    with (
        faulty_server(lambda *_: Status(status)) as (address, seen),
        pytest.raises(EngineUnavailableError, match="BLENDRUN_API_KEY"),
    ):
        run(out, jobs, engine=on(address, out))
    assert max(seen.times.values()) == 1


def test_the_key_is_sent_and_shown_nowhere(jobs: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLENDRUN_API_KEY", "very-secret")
    with faulty_server(first_times(Status(500, b"x"), 1)) as (address, seen):
        assert run(out, jobs, engine=on(address, out)).exit_code == 0
    assert {each["Authorization"] for each in seen.headers} == {"Bearer very-secret"}
    for path in out.parent.rglob("*"):
        assert not path.is_file() or b"very-secret" not in path.read_bytes()


def test_a_redirect_is_not_followed(jobs: Path, out: Path) -> None:
    with faulty_server() as (other, elsewhere):
        to = Status(307, b"", {"Location": f"{other}/v1/chat/completions"})
        with (
            faulty_server(lambda *_: to) as (address, _),
            pytest.raises(EngineUnavailableError, match="11 requests in a row: HTTP 307"),
        ):
            run(out, jobs, engine=on(address, out))
    assert elsewhere.asked == []


@pytest.mark.parametrize("fault", [Status(429), Status(401)], ids=str)
def test_a_server_that_turns_all_away_costs_restarts_and_no_line(jobs: Path, out: Path, fault: Fault) -> None:
    with faulty_server(lambda *_: fault) as (address, _), pytest.raises(EngineUnavailableError):
        run(out, jobs, engine=on(address, out, wait=0.5), patience=Patience(restarts=3, drain=0.0))
    summary = json.loads((Path(f"{out}.blendrun") / "summary.json").read_bytes())
    assert summary["counts"] == {"total": COUNT, "completed": 0, "failed": 0}
    assert len(summary["restarts"]) == 4


def test_a_bound_that_nobody_counted_is_lowered_until_it_fits(tmp_path: Path, out: Path) -> None:
    """The server has room for 500 tokens of answer."""
    asked = {"max_tokens": 900}
    jobs = write(tmp_path / "jobs.jsonl", line("a", "question 0", **asked), line("b", "question 1", max_tokens=400))
    too_long = Status(400, b'{"message": "maximum context length is 8192"}')

    def script(text: str, before: int) -> Fault | None:
        return too_long if seen[0].bodies[-1]["max_tokens"] > 500 else None

    seen: list[Seen] = []
    with faulty_server(script) as (address, found):
        seen.append(found)
        assert run(out, jobs, engine=on(address, out, concurrency=1)).exit_code == 0
    assert [body["max_tokens"] for body in found.bodies] == [900, 720, 576, 460, 400]


def test_a_key_with_a_line_end_is_sent_without_it(jobs: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLENDRUN_API_KEY", "very-secret\n")
    with faulty_server() as (address, seen):
        assert run(out, jobs, engine=on(address, out)).exit_code == 0
    assert {each["Authorization"] for each in seen.headers} == {"Bearer very-secret"}
    monkeypatch.setenv("BLENDRUN_API_KEY", "very\nsecret")
    with pytest.raises(UsageError, match="BLENDRUN_API_KEY holds what is no key"):
        run(out, jobs, engine=on(address, out), resume=False)


def test_nobody_there_is_said_with_the_address(jobs: Path, out: Path) -> None:
    with faulty_server() as (address, _):
        pass
    with pytest.raises(EngineUnavailableError, match=rf"{address} is away .*start it, or check the address"):
        run(out, jobs, engine=on(address, out, wait=0.5))


def test_what_is_no_such_server_is_said_at_once(jobs: Path, out: Path) -> None:
    with (
        faulty_server(models=[{"no": "name"}]) as (address, _),
        pytest.raises(EngineUnavailableError, match="does not list models"),
    ):
        run(out, jobs, engine=on(address, out))


def test_a_server_that_comes_back_goes_on_with_what_it_had(jobs: Path, out: Path) -> None:
    """Away for longer than the tries of a request last: a dead engine, which is started again."""
    seen, finished = [Seen()], threading.Event()
    with faulty_server() as (address, _):
        port = int(address.rpartition(":")[2])

    def world() -> None:
        with faulty_server(port=port, work=0.1) as (_, before):
            seen[:] = [before]
            while len(before.asked) < COUNT // 2:
                time.sleep(0.01)
        time.sleep(3.0)
        with faulty_server(port=port) as (_, after):
            seen.append(after)
            finished.wait()

    thread = threading.Thread(target=world)
    thread.start()
    try:
        engine = on(address, out, tries=2, wait=30.0)
        summary = run(out, jobs, engine=engine, patience=Patience(restarts=2, drain=0.0))
    finally:
        finished.set()
        thread.join()
    assert summary.exit_code == 0
    assert [each["custom_id"] for each in lines_of(out)] == IDS
    assert len(summary.restarts) == 1
    assert 0 < len(seen[1].asked) < COUNT


class TestSeveral:
    """Each server is a replica."""

    def run(self, out: Path, jobs: Path, *addresses: str, **given: Any) -> Summary:
        patience = Patience(restarts=0, drain=0.0)
        wanted = settings(out, jobs, replicas=len(addresses), patience=patience)
        chosen = HttpSettings(**{"concurrency": 2, "wait": 2.0, "tries": 2, "backoff": 0.05} | given)
        return execute(
            wanted,
            lambda state, *_: HttpEngine(addresses[state.replica - 1], chosen, state.engine_log),
            ignore,
        )

    def asked(self, *servers: Seen) -> list[list[str]]:
        return [sorted(set(seen.asked)) for seen in servers]

    def test_share_the_work(self, jobs: Path, out: Path) -> None:
        with faulty_server(work=0.05) as (one, first), faulty_server(work=0.05) as (two, second):
            assert self.run(out, jobs, one, two).exit_code == 0
        assert [each["custom_id"] for each in lines_of(out)] == IDS
        assert sum((first.times + second.times).values()) == COUNT
        assert min(len(first.asked), len(second.asked)) > COUNT // 4

    def test_the_others_do_what_one_that_went_away_had(self, jobs: Path, out: Path) -> None:
        first, up = Seen(), threading.Event()
        address = ["", ""]

        def never_the_third(text: str, before: int) -> Fault | None:
            return Stall() if len(first.asked) > 2 else None

        def world() -> None:
            with faulty_server(never_the_third, work=0.1) as (address[0], seen):
                first.asked = seen.asked
                up.set()
                while len(seen.asked) < 4:
                    time.sleep(0.01)

        thread = threading.Thread(target=world)
        thread.start()
        with faulty_server(work=0.1) as (address[1], second):
            up.wait()
            summary = self.run(out, jobs, *address)
        thread.join()
        assert summary.exit_code == 0, errors_of(out)
        assert [each["custom_id"] for each in lines_of(out)] == IDS
        assert [each.replica for each in summary.restarts] == [1]
        assert set(first.asked[-2:]) <= set(second.asked)

    def test_one_that_cuts_what_it_has_and_goes_blames_no_request(self, jobs: Path, out: Path) -> None:
        """Each try is cut, the last one by its end: nobody listens when the tries are used up."""
        cut, up, over = Counter[str](), threading.Event(), threading.Event()
        address = ["", ""]

        def cut_each(text: str, before: int) -> Fault | None:
            cut[text] += 1
            if cut[text] == 2:
                over.set()
                return Stall()
            return HangUp(reset=True)

        def world() -> None:
            with faulty_server(cut_each) as (address[0], _):
                up.set()
                over.wait()

        thread = threading.Thread(target=world)
        thread.start()
        with faulty_server(work=0.05) as (address[1], second):
            up.wait()
            summary = self.run(out, jobs, *address, concurrency=1)
        thread.join()
        assert summary.exit_code == 0, errors_of(out)
        assert [each["custom_id"] for each in lines_of(out)] == IDS
        assert set(cut) <= set(second.asked)

    def test_one_that_never_was_there_costs_nothing(self, jobs: Path, out: Path) -> None:
        with faulty_server() as (away, _):
            pass
        with faulty_server() as (there, seen):
            summary = self.run(out, jobs, away, there)
        assert summary.exit_code == 0
        assert [each["custom_id"] for each in lines_of(out)] == IDS
        assert len(seen.asked) == COUNT

"""Media that lines name: what is fetched, what is refused, and that a failure costs its own line only."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from base64 import b64decode
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from blendrun.backends.options import RunOptions
from blendrun.backends.permissions import with_media
from blendrun.endpoints.local_media import Content, MediaError, read_below
from blendrun.engine.base import Result, WorkItem
from blendrun.engine.media.engine import MediaEngine
from blendrun.engine.media.fetch import Fetcher, MediaAccess
from blendrun.engine.replay import ReplayEngine
from blendrun.errors import UsageError
from blendrun.events import ignore
from blendrun.remote.public import is_public
from tests.command import REPLAY, blendrun, ids, lines_of
from tests.faults.media_server import METADATA, PICTURE, MediaServer, media_server


@pytest.fixture(scope="module")
def server() -> Iterator[MediaServer]:
    with media_server() as running:
        yield running


def picture_line(custom_id: str, *urls: str) -> dict[str, Any]:
    content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, *content]}]}
    return {"custom_id": custom_id, "url": "/v1/chat/completions", "body": body}


def write(folder: Path, *lines: dict[str, Any]) -> Path:
    jobs = folder / "jobs.jsonl"
    jobs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return jobs


def errors_of(folder: Path) -> dict[str, str]:
    """Messages of the errors file by custom_id; all of them are media that could not be had."""
    errors = {error["custom_id"]: error["error"] for error in lines_of(folder / "out.jsonl.errors.jsonl")}
    assert {error["code"] for error in errors.values()} <= {"media_unavailable"}
    assert all(error["line"] >= 1 for error in errors.values())
    return {name: error["message"] for name, error in errors.items()}


class TestTheCommand:
    def test_nothing_is_opened_unless_a_flag_allows_it(self, tmp_path: Path, server: MediaServer) -> None:
        url = f"{server.url}/picture.default"
        lines = [picture_line("address", url), picture_line("path", "/etc/hostname"), picture_line("data", DATA)]
        jobs = write(tmp_path, *lines)
        done = blendrun("run", jobs, *REPLAY, "-o", tmp_path / "out.jsonl")
        assert done.returncode == 3, done.stderr
        assert ids(tmp_path / "out.jsonl") == ["data"]
        messages = errors_of(tmp_path)
        assert "is fetched only with --allow-media-urls" in messages["address"]
        assert "is read only with --allow-media-files DIR" in messages["path"]
        assert not server.seen["/picture.default"]

    def test_the_same_command_with_the_flag_answers_what_was_refused(self, tmp_path: Path, server: MediaServer) -> None:
        jobs = write(tmp_path, picture_line("a", f"{server.url}/picture"), picture_line("b", DATA))
        command = ("run", jobs, *REPLAY, "-o", tmp_path / "out.jsonl")
        assert blendrun(*command).returncode == 3
        done = blendrun(*command, "--allow-media-urls", "--allow-private-media")
        assert done.returncode == 0, done.stderr
        assert ids(tmp_path / "out.jsonl") == ["a", "b"]

    def test_what_cannot_be_had_costs_its_own_line_only(self, tmp_path: Path, server: MediaServer) -> None:
        (tmp_path / "media").mkdir()
        (tmp_path / "media" / "in.png").write_bytes(PICTURE)
        faults = {
            "missing": ("missing", "the server answered 404"),
            "stated": ("stated", "has more than 50,331,648 bytes"),
            "gone": ("gone", "cannot be fetched"),
            "round": ("round", "is redirected more than 5 times"),
            "file": ("file", "leads to 'file:/etc/passwd', which is no http or https address"),
        }
        lines = [picture_line(name, f"{server.url}/{path}") for name, (path, _) in faults.items()]
        lines += [picture_line("unknown", "http://no-such-host.invalid/a"), picture_line("outside", "/etc/hostname")]
        good = [picture_line("good", f"{server.url}/elsewhere", "in.png"), picture_line("bare", DATA)]
        jobs = write(tmp_path, *lines, *good)
        config = tmp_path / "run.yaml"
        config.write_text(
            f"allow-media-files: {tmp_path / 'media'}\nallow-media-urls: true\nallow-private-media: true\n"
        )
        done = blendrun("run", jobs, *REPLAY, "-o", tmp_path / "out.jsonl", "--config", config)
        assert done.returncode == 3, done.stderr
        assert ids(tmp_path / "out.jsonl") == ["good", "bare"]
        messages = errors_of(tmp_path)
        assert sorted(messages) == sorted([*faults, "unknown", "outside"])
        for name, (_, sentence) in faults.items():
            assert sentence in messages[name], name
        assert "no-such-host.invalid is not known" in messages["unknown"]
        assert "lies outside of" in messages["outside"]

    def test_a_public_address_that_leads_to_a_private_one_is_refused(self, tmp_path: Path, server: MediaServer) -> None:
        urls = {"loopback": f"{server.url}/picture.private", "metadata": METADATA, "number": "http://2130706433/a"}
        jobs = write(tmp_path, *(picture_line(name, url) for name, url in urls.items()))
        done = blendrun("run", jobs, *REPLAY, "-o", tmp_path / "out.jsonl", "--allow-media-urls")
        assert done.returncode == 3, done.stderr
        messages = errors_of(tmp_path)
        assert "leads to 169.254.169.254, which is no public address" in messages["metadata"]
        for name in ("loopback", "number"):
            assert "leads to 127.0.0.1, which is no public address; --allow-private-media" in messages[name]
        assert not server.seen["/picture.private"], "not even connected to"

    @pytest.mark.parametrize(
        ("flags", "sentence"),
        [
            ({"allow_private_media": True}, "widens --allow-media-urls"),
            ({"allow_media_files": Path("/no/such/folder")}, "there is no such folder"),
        ],
    )
    def test_flags_that_would_do_nothing_are_refused(self, flags: dict[str, Any], sentence: str) -> None:
        options = RunOptions.of({"inputs": ["jobs.jsonl"], **flags})
        with pytest.raises(UsageError, match=sentence):
            with_media(lambda *_: ReplayEngine.from_arguments({}), options)


DATA = "data:image/png;base64,iVBORw0KGgo="


def fetch(url: str, largest: int = 1 << 20, **access: Any) -> Content:
    async def once() -> Content:
        fetcher = Fetcher(MediaAccess(urls=True, **{"private": True} | access))
        try:
            return await fetcher.fetch(url, largest)
        finally:
            await fetcher.close()

    return asyncio.run(once())


def failure(act: Callable[[], object]) -> str:
    with pytest.raises(MediaError) as caught:
        act()
    return str(caught.value)


class TestFetching:
    def test_what_lies_there_comes_with_its_type(self, server: MediaServer) -> None:
        assert fetch(f"{server.url}/picture") == Content(PICTURE, "image/png")
        assert fetch(f"{server.url}/elsewhere").data == PICTURE
        # The name is resolved here, and the server is still asked by its name.
        assert fetch(f"http://localhost:{server.server_port}/picture").data == PICTURE

    def test_a_slow_server_has_its_time_and_no_more(self, server: MediaServer) -> None:
        # One of them sends a byte now and then, for ever.
        for path in ("drip", "slow"):
            said = failure(partial(fetch, f"{server.url}/{path}", seconds=0.15))
            assert said == "has not come within 0.15 s"

    def test_a_body_that_is_too_large_is_not_read_to_its_end(self, server: MediaServer) -> None:
        for path in ("stated", "endless"):
            assert failure(partial(fetch, f"{server.url}/{path}", 100_000)) == "has more than 100,000 bytes"

    def test_what_is_compressed_is_not_unpacked(self, server: MediaServer) -> None:
        assert "compressed" in failure(lambda: fetch(f"{server.url}/squeezed"))

    def test_a_server_that_vanishes(self, server: MediaServer) -> None:
        assert failure(lambda: fetch(f"{server.url}/gone")).startswith("cannot be fetched: ")
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        assert failure(lambda: fetch(f"http://127.0.0.1:{port}/")).startswith("cannot be fetched: ")

    def test_a_redirect_is_checked_as_the_first_address_was(
        self, server: MediaServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The test's server counts as public; where it leads does not.
        monkeypatch.setattr("blendrun.engine.media.fetch.is_public", lambda address: address == "127.0.0.1")
        assert fetch(f"{server.url}/elsewhere", private=False).data == PICTURE
        assert failure(lambda: fetch(f"{server.url}/metadata", private=False)).startswith("leads to 169.254.169.254,")

    def test_the_connection_is_made_to_the_address_that_was_checked(
        self, server: MediaServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A name that would be found elsewhere when asked for a second time.
        answers = iter((["127.0.0.1"], AssertionError("asked again")))

        async def resolve(*_: object, **__: object) -> list[Any]:
            found = next(answers)
            if isinstance(found, Exception):
                raise found
            return [(0, 0, 0, "", (address, server.server_port)) for address in found]

        async def once() -> Content:
            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
            fetcher = Fetcher(MediaAccess(urls=True, private=True))
            return await fetcher.fetch(f"http://pictures.example:{server.server_port}/picture", 1 << 20)

        assert asyncio.run(once()).data == PICTURE

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("http://", "which is no http or https address"),
            ("http:///a", "which is no http or https address"),
            ("http://[::1", "cannot be fetched: Invalid port"),
            ("http://a b/", "a%20b is not known"),
            ("http://ex\u0000ample/", "cannot be fetched: Invalid non-printable ASCII character"),
        ],
    )
    def test_what_is_no_address(self, url: str, why: str) -> None:
        assert why in failure(lambda: fetch(url))


_NOT_PUBLIC = (
    "0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 169.254.169.254 172.16.0.1 192.0.0.8 192.168.1.1 224.0.0.1 240.0.0.1 "
    "255.255.255.255 :: ::1 ::ffff:10.0.0.1 ::127.0.0.1 64:ff9b::7f00:1 2002:7f00:1:: fc00::1 fe80::1%lo fec0::1 "
    "ff02::1 "
    # Reserved, or of IPv4 addresses that are: IANA's registries of special-purpose addresses.
    "64:ff9b:1::7f00:1 64:ff9b:1::808:808 ::ffff:0:a00:1 ::ffff:0:808:808 64:ff9b::a00:1 5f00::1 3fff::1 2001::1 "
    "2001:2::1 2001:10::1 2001:db8::1 100::1 100:0:0:1::1 2002:a00:1:: 4000::1 fd00:ec2::254 192.0.0.192 192.88.99.1 "
    "198.18.0.1 100.100.100.200 168.63.129.16 ::ffff:168.63.129.16"
)


@pytest.mark.parametrize("address", _NOT_PUBLIC.split())
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "2620:4f:8000::1"])
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "media"
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "a b.png").write_bytes(PICTURE)
        (tmp_path / "secret").write_bytes(b"secret")
        return folder

    def test_below_the_folder_by_any_name(self, folder: Path) -> None:
        for url in (
            "deep/a b.png",
            f"{folder}/deep/a b.png",
            f"file://{folder}/deep/a%20b.png",
            "deep/../deep/a b.png",
        ):
            assert read_below(folder, url, 10_000) == Content(PICTURE, "image/png")
        (folder / "link.jpg").symlink_to("deep/a b.png")
        assert read_below(folder, "link.jpg", 10_000).data == PICTURE

    def test_not_outside_by_any_name(self, folder: Path, tmp_path: Path) -> None:
        (folder / "link").symlink_to(tmp_path / "secret")
        (folder / "up").symlink_to("..")
        (tmp_path / "media-too").mkdir()
        (tmp_path / "media-too" / "a").write_bytes(b"secret")
        for url in (
            f"{tmp_path}/secret",
            "../secret",
            "../no-such-file",
            "link",
            "up/secret",
            f"file://{folder}/%2e%2e/secret",
            f"file://localhost{tmp_path}/secret",
            "../media-too/a",
            "/proc/self/environ",
        ):
            assert failure(partial(read_below, folder, url, 10_000)).startswith("lies outside of "), url

    def test_what_is_no_file_is_not_waited_for(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        assert failure(lambda: read_below(folder, "pipe", 10)) == "is no regular file"
        assert failure(lambda: read_below(folder, "deep", 10)) in (
            "is no regular file",
            "cannot be read: Is a directory",
        )

    def test_what_cannot_be_read_says_why(self, folder: Path) -> None:
        (folder / "loop").symlink_to("loop")
        assert failure(lambda: read_below(folder, "none.png", 10)) == "cannot be read: No such file or directory"
        assert failure(lambda: read_below(folder, "deep/a b.png", 10)) == "has more than 10 bytes"
        assert "names the host" in failure(lambda: read_below(folder, "file://server/a", 10))
        for url in ("A" * 100_000, "a\u0000b", "loop"):
            assert failure(partial(read_below, folder, url, 10)).startswith("cannot be read: ")


class Echo(ReplayEngine):
    """The replay engine, which keeps what it was given."""

    def __init__(self) -> None:
        super().__init__(ReplayEngine.from_arguments({}).settings)
        self.given: dict[int, list[str]] = {}

    async def submit(self, item: WorkItem) -> None:
        content = orjson.loads(item.body)["messages"][0]["content"][1:]
        self.given[item.row] = [part["image_url"]["url"] for part in content]
        await super().submit(item)


def serve(access: MediaAccess, *lines: dict[str, Any], rounds: int = 1) -> tuple[dict[int, list[str]], list[Result]]:
    """What the engine was given and what came back, of the same lines handed over `rounds` times."""

    async def one_round(engine: MediaEngine, first: int) -> list[Result]:
        async def submit() -> None:
            for row, line in enumerate(lines, first):
                await engine.submit(WorkItem(row, line["url"], orjson.dumps(line["body"])))
            await engine.close_input()

        async def collect() -> list[Result]:
            return [result async for result in engine.results()]

        _, results = await asyncio.gather(submit(), collect())
        return results

    async def all_rounds() -> tuple[dict[int, list[str]], list[Result]]:
        echo = Echo()
        engine = MediaEngine(echo, access)
        await engine.start(ignore)
        results: list[Result] = []
        for number in range(rounds):
            results += await one_round(engine, number * len(lines))
        await engine.stop()
        await engine.stop()
        return echo.given, results

    work: Coroutine[Any, Any, tuple[dict[int, list[str]], list[Result]]] = asyncio.wait_for(all_rounds(), 20)
    return asyncio.run(work)


class TestWhatTheEngineIsGiven:
    def test_is_always_a_data_url(self, tmp_path: Path, server: MediaServer) -> None:
        (tmp_path / "a.jpg").write_bytes(b"jpeg")
        access = MediaAccess(files=tmp_path, urls=True, private=True)
        line = picture_line("a", f"{server.url}/picture", "a.jpg", DATA, f"{server.url}/plain")
        given, results = serve(access, line)
        assert [url.partition(",")[0] for url in given[0]] == [
            "data:image/png;base64",
            "data:image/jpeg;base64",
            "data:image/png;base64",
            "data:image/unknown;base64",
        ]
        assert [b64decode(url.partition(",")[2]) for url in (given[0][0], given[0][1])] == [PICTURE, b"jpeg"]
        assert given[0][2] == DATA
        assert [result.error_code for result in results] == [None]

    def test_many_are_fetched_at_once_but_not_all(self, server: MediaServer) -> None:
        lines = [picture_line(str(row), f"{server.url}/slow/{row}") for row in range(24)]
        server.at_once = 0
        given, results = serve(MediaAccess(urls=True, private=True), *lines)
        assert sorted(given) == sorted(result.row for result in results) == list(range(24))
        assert 1 < server.at_once <= 16

    def test_an_engine_that_is_fed_again_goes_on(self, server: MediaServer) -> None:
        lines = [picture_line("good", f"{server.url}/picture"), picture_line("bad", f"{server.url}/missing")]
        _, results = serve(MediaAccess(urls=True, private=True), *lines, rounds=3)
        codes = {result.row: result.error_code for result in results}
        assert codes == {row: "media_unavailable" if row % 2 else None for row in range(6)}

    def test_all_media_of_a_line_share_one_bound(self, server: MediaServer) -> None:
        access = MediaAccess(urls=True, private=True, largest=2 * len(PICTURE))
        two, three = (picture_line("a", *[f"{server.url}/picture"] * count) for count in (2, 3))
        _, results = serve(access, two, three)
        assert {result.row: result.error_code for result in results} == {0: None, 1: "media_unavailable"}

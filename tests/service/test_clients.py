"""Clients that keep the server waiting: it lets go of them, and answers all others meanwhile."""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from openai import NotFoundError

uvicorn = pytest.importorskip("uvicorn", reason="SGLang's web framework is not installed")

from blendrun.service import clients  # noqa: E402
from blendrun.service.clients import LEAST_RATE, Patience, PatientProtocol  # noqa: E402
from tests.service.killed import ForkedServer  # noqa: E402

# More than the kernel keeps of an answer.
LARGE = 64 << 20

PATIENCE_S = 0.2
UPLOAD = b"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\nContent-Length: 1000\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\nContent-Disposition: form-data; "
CREATE = b"POST /v1/batches HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\nContent-Length: 1000\r\n\r\n{"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedServer]:
    found = ForkedServer(tmp_path_factory.mktemp("slow") / "store", None, {"engine": "replay"}, patience=PATIENCE_S)
    yield found
    found.end()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (b"", b""),
        (b"GET /health HTTP/1.1\r\nHost:", b""),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HT", b"HTTP/1.1 200"),
        (UPLOAD + FORM, b"HTTP/1.1 408"),
        (CREATE, b"HTTP/1.1 408"),
    ],
    ids=["nothing", "half a head", "half a second one", "half an upload", "half a body"],
)
def test_one_that_does_not_go_on_is_let_go(server: ForkedServer, words: bytes, answer: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(words)
        assert server.client.batches.list().data == [], "others are answered"
        said = b""
        while more := connection.recv(1 << 16):
            said += more
    assert said.startswith(answer) and bool(said) == bool(answer)


def test_one_that_is_slow_and_goes_on_is_answered(server: ForkedServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        for part in (b"GET /health HTTP/1.1\r\n", b"Host: x\r\n", b"Connection: close\r\n\r\n"):
            connection.sendall(part)
        said = b""
        while more := connection.recv(1 << 16):
            said += more
    assert said.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("words", "answer"),
    [(b"GET /health HTTP/1.1\r\nX: ", b""), (UPLOAD + FORM, b"HTTP/1.1 408"), (CREATE, b"HTTP/1.1 408")],
    ids=["head", "upload", "body"],
)
def test_one_that_sends_a_little_at_a_time_is_let_go(server: ForkedServer, words: bytes, answer: bytes) -> None:
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S / 5) as connection:
        connection.sendall(words)
        said = b""
        while time.monotonic() - begun < 30:
            with suppress(TimeoutError, ConnectionError):
                if not (more := connection.recv(1 << 16)):
                    break
                said += more
            with suppress(ConnectionError):
                connection.sendall(b"x")
        assert time.monotonic() - begun < 30
    assert said.startswith(answer) and bool(said) == bool(answer)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n", b"HTTP/1.1 400"),
        (b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 100_000, b"HTTP/1.1 400"),
        (b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", b"HTTP/1.1 400"),
        (b"Content-Length: -2\r\n\r\n{}", b"HTTP/1.1 400"),
        (b"X: " + b"x" * (1 << 20) + b"\r\n\r\n", b"HTTP/1.1 400"),
        (b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\n{}", b"HTTP/1.1 400"),
        (b"Content-Length: 2\r\n\r\n{}GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 400"),
    ],
    ids=["size", "long size", "two lengths", "length", "head", "upgrade", "pipelined"],
)
def test_odd_words_are_refused_and_nothing_is_said(server: ForkedServer, words: bytes, answer: bytes) -> None:
    said = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection, suppress(ConnectionError):
        connection.sendall(CREATE.partition(b"Content-Length")[0] + words)
        while more := connection.recv(1 << 16):
            said += more
    # A reset may overtake the answer to one that goes on sending.
    assert said.startswith(answer) or (not said and len(words) > 1 << 16)
    assert server.client.batches.list().data == []
    assert server.said.count("\n") == 1


def test_one_that_vanishes_is_nothing_to_speak_of(server: ForkedServer) -> None:
    for words in (UPLOAD + FORM, CREATE):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            # Closed by a reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(words)
            assert server.client.batches.list().data == []
        assert server.client.batches.list().data == []
    assert server.said.count("\n") == 1, "where it is, and no more"


def test_a_content_that_somebody_took_away_is_not_found(server: ForkedServer) -> None:
    file = server.client.files.create(file=("x", io.BytesIO(b"x")), purpose="batch")
    (server.store / "files" / f"{file.id}.content").unlink()
    with pytest.raises(NotFoundError, match="there is no content of"):
        server.client.files.content(file.id)


@pytest.mark.parametrize("pieces", [1, 1000], ids=["at once", "in pieces"])
def test_one_that_does_not_take_its_answer_is_let_go(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for place in range(pieces):
            more = place < pieces - 1
            await send({"type": "http.response.body", "body": b"x" * (LARGE // pieces), "more_body": more})

    for name in ("HEAD_S", "BODY_S", "ANSWER_S"):
        monkeypatch.setattr(clients, name, PATIENCE_S)
    config = uvicorn.Config(app, port=0, http=PatientProtocol, lifespan="off", log_level="critical")
    listening, server = config.bind_socket(), uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    until = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < until
        time.sleep(0.001)
    try:
        with socket.create_connection(listening.getsockname(), timeout=30) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            until = time.monotonic() + 30
            while _is_open(listening.getsockname()[1], connection.getsockname()[1]):
                assert time.monotonic() < until
                time.sleep(0.02)
            said = 0
            with suppress(ConnectionError):
                while more := len(connection.recv(1 << 20)):
                    said += more
        assert said < LARGE
    finally:
        server.should_exit = True
        thread.join()


def _is_open(server: int, client: int) -> bool:
    """Whether the server has its end of a connection open still, as the kernel tells it. Both: ports."""
    ends = (line.split()[1:4] for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return [state for ours, theirs, state in ends if (_port(ours), _port(theirs)) == (server, client)] == ["01"]


def _port(end: str) -> int:
    return int(end.partition(":")[2], 16)


def test_patience_comes_back_with_bytes_and_is_never_more_than_at_first() -> None:
    patience = Patience(20.0)
    patience.spend(15.0)
    patience.moved(2 * LEAST_RATE)
    assert patience.left == 7.0
    patience.moved(1000 * LEAST_RATE)
    assert patience.left == 20.0

"""Clients that keep the server waiting: it lets go of them, and answers all others meanwhile."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.service.killed import ForkedServer

pytest.importorskip("starlette", reason="SGLang's web framework is not installed")

UPLOAD = b"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\nContent-Length: 1000\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\nContent-Disposition: form-data; "
CREATE = b"POST /v1/batches HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\nContent-Length: 1000\r\n\r\n{"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedServer]:
    found = ForkedServer(tmp_path_factory.mktemp("slow") / "store", None, {"engine": "replay"}, patience=0.2)
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

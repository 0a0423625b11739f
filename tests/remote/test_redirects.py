"""Where a redirect may lead: not from a public address into the network that this machine is in.

Public addresses are asked for through a proxy of the environment, which is the server of the test: nothing leaves this
machine.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from blendrun.events import ignore
from blendrun.remote import http
from blendrun.remote.address import Address
from blendrun.remote.fetch import fetch
from blendrun.remote.part import Part
from blendrun.remote.public import is_public
from blendrun.remote.tries import RemoteError
from tests.remote.object_server import Objects, redirect

PUBLIC, OTHER = "http://1.1.1.1/jobs.jsonl", "http://8.8.8.8/jobs.jsonl"
INNER = [
    "http://127.0.0.1:1/jobs.jsonl",
    "http://localhost:1/",
    "http://10.0.0.1/",
    "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://168.63.129.16/",
    "http://0.0.0.0/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[fd00::1]/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://user:word@127.0.0.1/",
    "//127.0.0.1/",
]


@pytest.fixture(autouse=True)
def through_the_server(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, objects.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    objects.files["/jobs.jsonl"] = b"content"


def got(address: str, folder: Path) -> bytes:
    return fetch(Address(address), folder, ignore).read_bytes()


@pytest.mark.parametrize("where", INNER)
def test_no_input_comes_from_within(objects: Objects, tmp_path: Path, where: str) -> None:
    objects.faults.append(redirect(302, where))
    with pytest.raises(RemoteError, match="is redirected to an address that is not public, which is not followed"):
        http.get(Address(PUBLIC), Part(tmp_path / "part", tmp_path / "note"), None)
    assert len(objects.asked) == 1


@pytest.mark.parametrize("where", INNER)
def test_no_output_goes_there(objects: Objects, tmp_path: Path, where: str) -> None:
    (tmp_path / "out.jsonl").write_bytes(b"answers")
    objects.faults.append(redirect(307, where))
    with pytest.raises(RemoteError, match="is redirected to an address that is not public, which is not followed"):
        http.put(Address(PUBLIC), tmp_path / "out.jsonl")
    assert [each.method for each in objects.asked] == ["PUT"]


def test_not_by_a_way_round_either(objects: Objects, tmp_path: Path) -> None:
    objects.faults.extend([redirect(302, OTHER), redirect(302, "http://10.0.0.1/")])
    with pytest.raises(RemoteError, match="is not public"):
        http.get(Address(PUBLIC), Part(tmp_path / "part", tmp_path / "note"), None)
    assert len(objects.asked) == 2


def test_from_one_public_address_to_another(objects: Objects, tmp_path: Path) -> None:
    objects.faults.append(redirect(302, OTHER))
    assert got(PUBLIC, tmp_path) == b"content"
    assert [each.path for each in objects.asked] == [PUBLIC, OTHER]


def test_from_within_it_leads_anywhere(objects: Objects, tmp_path: Path) -> None:
    """Whoever gives an address of their own network trusts what is there."""
    port = objects.url.rpartition(":")[2]
    objects.faults.extend([redirect(302, f"http://localhost:{port}/jobs.jsonl"), redirect(302, OTHER)])
    assert got(f"{objects.url}/jobs.jsonl", tmp_path) == b"content"
    assert objects.asked[-1].path == OTHER


@pytest.mark.parametrize("where", ["http://1.1.1.1/x", "http://127.0.0.1/x", "file:///etc/passwd", "ftp://1.1.1.1/x"])
def test_none_leaves_https(where: str) -> None:
    import httpx

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return httpx.Response(302, headers={"Location": where})

    asked: list[httpx.URL] = []
    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        for method in ("GET", "PUT"):
            with (
                pytest.raises(RemoteError, match=f"is redirected to {where.partition(':')[0]}, which is not followed"),
                http._followed(client, method, Address("https://1.1.1.1/x"), {}),
            ):
                pass
    assert [url.scheme for url in asked] == ["https"] * 2


@pytest.mark.parametrize(
    ("address", "public"),
    [("1.1.1.1", True), ("2606:4700:4700::1111", True), ("::ffff:10.0.0.1", False), ("64:ff9b::7f00:1", False)],
)
def test_which_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public

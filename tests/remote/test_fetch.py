"""A file fetched over http: every way in which that fails, and what is left to go on from."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest

from blendrun.errors import InputInvalidError, InputMissingError, OutputUnavailableError
from blendrun.events import Event, Note
from blendrun.remote import http
from blendrun.remote.address import Address
from blendrun.remote.fetch import copy_of, fetch, forget_others
from tests.remote.object_server import Fault, Handler, Objects, cut_after, redirect, status

CONTENT = os.urandom(300_000)
SECRET = "?X-Amz-Signature=5ec2e7f00d"


@pytest.fixture
def address(objects: Objects) -> Address:
    objects.files["/jobs.jsonl"] = CONTENT
    return Address(f"{objects.url}/jobs.jsonl{SECRET}")


def test_libraries_log_nothing_of_it(
    objects: Objects, address: Address, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    get(address, tmp_path)
    assert "5ec2e7" not in caplog.text
    assert logging.getLogger("httpx").filters == []


def get(address: Address, folder: Path) -> tuple[bytes, list[str]]:
    """What was fetched, and what was said."""
    events: list[Event] = []
    path = fetch(address, folder, events.append)
    assert path == copy_of(address, folder)
    assert path.stat().st_mode & 0o777 == 0o600
    return path.read_bytes(), [event.text for event in events if isinstance(event, Note)]


def test_it_is_fetched_once_and_looked_at_again(objects: Objects, address: Address, tmp_path: Path) -> None:
    assert get(address, tmp_path) == (CONTENT, [])
    assert get(address, tmp_path) == (CONTENT, [])
    assert objects.asked[1].headers["If-None-Match"]
    objects.files["/jobs.jsonl"] = b"new"
    assert get(address, tmp_path) == (b"new", [])
    # Another signature of the same thing.
    again = Address(address.text.replace("5ec2e7", "0ther"))
    assert get(again, tmp_path) == (b"new", [])
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jsonl", ".note"]
    forget_others(tmp_path, [again])
    assert get(again, tmp_path)[0] == b"new"
    forget_others(tmp_path, [])
    assert list(tmp_path.iterdir()) == []


def test_without_a_version_it_is_fetched_again(objects: Objects, address: Address, tmp_path: Path) -> None:
    objects.tags = False
    get(address, tmp_path)
    objects.files["/jobs.jsonl"] = b"x"
    assert get(address, tmp_path)[0] == b"x"


def test_a_date_is_a_version_too(objects: Objects, address: Address, tmp_path: Path) -> None:
    date = "Sun, 01 Nov 2026 10:00:00 GMT"
    objects.faults.extend([status(200, CONTENT, {"Last-Modified": date}), status(304)])
    assert get(address, tmp_path) == get(address, tmp_path) == (CONTENT, [])
    assert [each.headers.get("If-Modified-Since") for each in objects.asked] == [None, date]


@pytest.mark.parametrize(("tag", "fetched"), [('"a"', 1), ('W/"a"', 2)])
def test_a_server_that_knows_no_conditions(
    objects: Objects, address: Address, tmp_path: Path, tag: str, fetched: int
) -> None:
    """It sends all each time; only a strong tag says that it is the same, byte for byte."""
    objects.faults.extend([status(200, CONTENT, {"ETag": tag})] * 3)
    get(address, tmp_path)
    (copy,) = tmp_path.glob("*.jsonl")
    before = copy.stat().st_mtime_ns
    assert get(address, tmp_path) == (CONTENT, [])
    assert (copy.stat().st_mtime_ns == before) is (fetched == 1)


@pytest.mark.parametrize(
    "faults",
    [
        [status(500)],
        [status(503, headers={"Retry-After": "0"}), status(429), status(408)],
        [cut_after(100_000)],
        [cut_after(0), cut_after(1), cut_after(299_000)],
        # Each brings some more, so no number of them is too many.
        [cut_after(20_000)] * 12,
        [cut_after(100_000), status(416)],
        [cut_after(100_000), status(206, b"other", {"Content-Range": "bytes 7-11/300000"})],
        [cut_after(100_000), status(206, b"other", {"Content-Range": "bytes 100000-100004/300000", "ETag": '"no"'})],
    ],
)
@pytest.mark.parametrize("ranges", [True, False])
def test_what_may_pass_is_tried_again(
    objects: Objects, address: Address, tmp_path: Path, faults: list[Fault], ranges: bool
) -> None:
    objects.ranges = ranges
    objects.faults.extend(faults)
    content, said = get(address, tmp_path)
    assert content == CONTENT
    assert said
    assert not any("5ec2e7" in text for text in said)


def test_it_goes_on_where_it_stopped(objects: Objects, address: Address, tmp_path: Path) -> None:
    objects.faults.append(cut_after(100_000))
    get(address, tmp_path)
    assert [each.headers.get("Range") for each in objects.asked] == [None, "bytes=100000-"]


def test_what_changes_in_between_is_fetched_from_its_beginning(
    objects: Objects, address: Address, tmp_path: Path
) -> None:
    new = os.urandom(200_000)

    def cut_and_change(handler: Handler) -> None:
        cut_after(100_000)(handler)
        objects.files["/jobs.jsonl"] = new

    objects.faults.append(cut_and_change)
    assert get(address, tmp_path)[0] == new


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (status(404), "is not there: the server answered 404; check the address"),
        (
            status(403, b"<Error><Code>AccessDenied</Code><Key>5ec2e7f00d</Key>"),
            "is refused: the server answered 403 (AccessDenied)",
        ),
        (status(401), "is refused: the server answered 401"),
        (status(400), "cannot be had: the server answered 400"),
        (redirect(302, "ftp://elsewhere/x"), "is redirected to ftp, which is not followed"),
    ],
)
def test_what_will_not_pass_ends_at_once(
    objects: Objects, address: Address, tmp_path: Path, fault: Fault, said: str
) -> None:
    objects.faults.append(fault)
    with pytest.raises(InputMissingError) as refused:
        get(address, tmp_path)
    assert said in str(refused.value)
    assert "5ec2e7" not in str(refused.value)
    assert len(objects.asked) == 1


def test_a_server_that_never_works_ends_after_its_tries(objects: Objects, address: Address, tmp_path: Path) -> None:
    objects.faults.extend([cut_after(50_000)] + [status(500)] * 20)
    with pytest.raises(InputMissingError, match="the same command goes on from what has come"):
        get(address, tmp_path)
    objects.faults.clear()
    objects.asked.clear()
    assert get(address, tmp_path)[0] == CONTENT
    assert objects.asked[0].headers["Range"] == "bytes=50000-"


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="was not to be reached"):
        get(Address("http://127.0.0.1:9/jobs.jsonl?sig=5ec2e7"), tmp_path)


def test_redirects_are_followed_five_times(objects: Objects, address: Address, tmp_path: Path) -> None:
    objects.faults.extend(redirect(code, "/jobs.jsonl?hop") for code in (301, 302, 303, 307, 308))
    assert get(address, tmp_path)[0] == CONTENT
    objects.faults.extend([redirect(302, "/jobs.jsonl?hop")] * 6)
    with pytest.raises(InputMissingError, match="redirected more than 5 times"):
        get(Address(f"{objects.url}/other.jsonl"), tmp_path)


def test_a_password_goes_to_its_own_host_alone(objects: Objects, address: Address, tmp_path: Path) -> None:
    given = Address(address.text.replace("http://", "http://me:word@"))
    objects.faults.append(redirect(302, f"http://localhost:{objects.url.rpartition(':')[2]}/jobs.jsonl"))
    assert get(given, tmp_path)[0] == CONTENT
    assert ["Authorization" in each.headers for each in objects.asked] == [True, False]


def test_a_server_that_falls_silent(
    objects: Objects, address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import Event as Flag

    monkeypatch.setattr(http, "SILENT_S", 0.05)
    wait = Flag()
    objects.faults.append(cut_after(1000, wait=wait))
    content, said = get(address, tmp_path)
    wait.set()
    assert content == CONTENT
    assert "fell silent" in said[0]


@pytest.mark.parametrize("fault", [status(403), status(404), status(500), redirect(302, "ftp://x/")])
def test_a_copy_that_cannot_be_compared_is_used(
    objects: Objects, address: Address, tmp_path: Path, fault: Fault
) -> None:
    get(address, tmp_path)
    objects.faults.extend([fault] * 3)
    content, said = get(address, tmp_path)
    assert content == CONTENT
    assert any("the copy that is here goes on being used" in text for text in said)


def test_a_change_that_was_seen_is_never_passed_over(objects: Objects, address: Address, tmp_path: Path) -> None:
    get(address, tmp_path)
    objects.files["/jobs.jsonl"] = new = os.urandom(200_000)
    # Seen, begun, and then nothing more.
    objects.faults.extend([None, cut_after(50_000), *[status(500)] * 20])
    with pytest.raises(InputMissingError):
        get(address, tmp_path)
    objects.faults.clear()
    assert get(address, tmp_path)[0] == new


def test_a_file_that_never_keeps_still(objects: Objects, address: Address, tmp_path: Path) -> None:
    def longer(handler: Handler) -> None:
        # More than is left by its own word.
        handler.close_connection = True
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 10-{len(CONTENT) - 1}/{len(CONTENT)}")
        handler.end_headers()
        handler.wfile.write(CONTENT)

    objects.faults.extend([cut_after(10), longer] * 3)
    with pytest.raises(InputInvalidError, match="changes while it is read"):
        get(address, tmp_path)


def test_a_disk_that_is_full(
    objects: Objects, address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blendrun.remote import part

    def full(self: object, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(part._Growing, "write", full)
    with pytest.raises(OutputUnavailableError, match="make room there"):
        get(address, tmp_path)


def test_a_part_of_another_size_than_its_note_says_is_not_gone_on_with(
    objects: Objects, address: Address, tmp_path: Path
) -> None:
    objects.faults.extend([cut_after(50_000), status(404)])
    with pytest.raises(InputMissingError):
        get(address, tmp_path)
    (part,) = tmp_path.glob("*.part")
    for note in (b"", b"{}", b"[1]"):
        next(tmp_path.glob("*.note")).write_bytes(note)
        assert get(address, tmp_path)[0] == CONTENT
        copy_of(address, tmp_path).rename(part)


def test_a_whole_part_gets_its_name(objects: Objects, address: Address, tmp_path: Path) -> None:
    get(address, tmp_path)
    note = next(tmp_path.glob("*.note"))
    copy_of(address, tmp_path).rename(note.with_suffix(".part"))
    note.write_bytes(note.read_bytes().replace(b'"whole":true', b'"whole":false'))
    assert get(address, tmp_path)[0] == CONTENT
    assert objects.asked[-1].headers["If-None-Match"]
    assert len(objects.asked) == 2


def test_packed_on_the_way_stays_packed(objects: Objects, address: Address, tmp_path: Path) -> None:
    import gzip

    packed = gzip.compress(CONTENT)
    objects.faults.append(status(200, packed, {"Content-Encoding": "gzip"}))
    assert get(address, tmp_path)[0] == packed
    assert objects.asked[0].headers["Accept-Encoding"] == "identity"

"""Addresses: what they name, and what is shown of them."""

from __future__ import annotations

import pytest

from blendrun.errors import UsageError
from blendrun.remote.address import Address, file_name, is_address, local_paths, parse_address, shown

SIGNED = "https://b.s3.amazonaws.com/in/jobs.jsonl.gz?X-Amz-Credential=AKIA%2F1&X-Amz-Signature=5ec2e7&X-Amz-Expires=60"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (SIGNED, "https://b.s3.amazonaws.com/in/jobs.jsonl.gz?…"),
        ("https://me:pass@host:8080/a b.jsonl#frag", "https://host:8080/a b.jsonl"),
        ("s3://bucket/key.jsonl", "s3://bucket/key.jsonl"),
        ("HTTP://host/x\x1b[2J", "http://host/x\\x1b[2J"),
    ],
)
def test_what_is_shown_has_no_query_and_no_user(text: str, seen: str) -> None:
    address = parse_address(text)
    assert (address.shown, shown(text)) == (seen, seen)
    assert seen in repr(address)


def test_another_signature_is_the_same_address_and_another_query_is_not() -> None:
    assert Address(SIGNED).key == Address(SIGNED.replace("5ec2e7", "0ther")).key
    assert Address("https://a:b@h/x").key == Address("https://h/x").key
    blob = "https://h/x.jsonl?sv=2024-11-04&sr=b&se={}&sig={}"
    assert Address(blob.format(1, 2)).key == Address(blob.format(3, 4)).key
    keys = {Address(f"https://h/x?{query}").key for query in ("", "part=1", "part=2", "sv=1", "sv=2")}
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("text", "name", "suffixes"),
    [
        (SIGNED, "jobs.jsonl.gz", ".jsonl.gz"),
        ("https://h/a/My%20file.PARQUET", "My_file.PARQUET", ".parquet"),
        ("https://h/", "", ""),
        ("https://h/..", "", ""),
        ("https://h/%2e%2e%2fetc", "etc", ""),
        ("s3://b/v1.2/jobs", "jobs", ""),
    ],
)
def test_a_file_is_called_as_the_last_part_of_the_path(text: str, name: str, suffixes: str) -> None:
    assert (Address(text).name, Address(text).suffixes) == (name, suffixes)
    assert file_name(text) == name


def test_a_file_beside_it_needs_a_signature_of_its_own_where_it_has_one() -> None:
    assert Address(SIGNED).beside(".errors.jsonl") is None
    beside = Address("s3://b/out.jsonl").beside(".errors.jsonl")
    assert beside is not None
    assert beside.text == "s3://b/out.jsonl.errors.jsonl"


def test_what_others_say_is_told_without_secrets() -> None:
    address = Address("https://me:s3cret-word@h/x?sig=abcdef&token=12345678")
    said = address.scrub(f"cannot open {address.text}: token 12345678 of me:s3cret-word is bad (sig=abcdef)")
    for secret in ("s3cret-word", "abcdef", "12345678"):
        assert secret not in said


@pytest.mark.parametrize(
    "text", ["https://", "https://h:port/x", "s3://bucket", "s3:///key", "s3://key:word@b/x", "https://[::1"]
)
def test_what_is_no_whole_address_is_refused_without_its_secrets(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_address(text)
    assert "word" not in str(refused.value)


def test_paths_are_no_addresses() -> None:
    names = ["a.jsonl", "-", "s3://b/x", "ftp://h/x", "https:/h/x", "dir/http://x"]
    assert [name for name in names if is_address(name)] == ["s3://b/x"]
    assert [str(path) for path in local_paths(["a.jsonl", "-", "s3://b/x"])] == ["a.jsonl"]

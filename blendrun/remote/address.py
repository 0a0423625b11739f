"""Addresses as people give them, and as they may be shown.

A signed address is a password: who has it may read or write. Nothing that blendrun writes or says has more of it than
scheme, host and path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from blendrun.errors import UsageError
from blendrun.text import printable

HTTP = ("http", "https")
# Of fsspec, with the package that each needs.
STORES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
_ADDRESS = re.compile(rf"({'|'.join((*HTTP, *STORES))})://", re.IGNORECASE)
# Parts of a query that sign it: another signature of the same thing is the same address.
_SIGNATURE = re.compile(r"x-amz-.*|x-goog-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id")
# Of Azure, where the names are short and only mean this beside `sig`.
_AZURE = {"sv", "ss", "srt", "sp", "se", "st", "spr", "sig", "sr", "sip", "skoid", "sktid", "skt", "ske", "sks", "skv"}
_SUFFIXES = re.compile(r"((?:\.[A-Za-z][A-Za-z0-9]{0,7}){1,2})\Z")
_NO_NAME = re.compile(r"[^\w.+=@-]")
_LONGEST_NAME = 120


@dataclass(frozen=True)
class Address:
    """text: as given, with its secrets. Never print it: `shown` is for people."""

    text: str

    def __repr__(self) -> str:
        return f"Address({self.shown})"

    @property
    def scheme(self) -> str:
        return self.text.partition("://")[0].lower()

    @property
    def http(self) -> bool:
        return self.scheme in HTTP

    @cached_property
    def shown(self) -> str:
        """Scheme, host and path; of a query only that there is one."""
        parts = urlsplit(self.text)
        host = parts.netloc.rpartition("@")[2]
        # With it goes what may follow: a fragment.
        query = "?…" if parts.query else ""
        return printable(f"{self.scheme}://{host}{parts.path}{query}".encode(errors="replace").decode())

    @cached_property
    def key(self) -> str:
        """A digest of what it names, whoever signed it and whenever."""
        parts = urlsplit(self.text)
        query = parse_qsl(parts.query, keep_blank_values=True)
        azure = any(name == "sig" for name, _ in query)
        kept = [
            (name, value)
            for name, value in query
            if not _SIGNATURE.fullmatch(name.lower()) and not (azure and name.lower() in _AZURE)
        ]
        named = f"{self.scheme}://{parts.netloc.rpartition('@')[2].lower()}{parts.path}?{urlencode(kept)}"
        return blake2b(named.encode(errors="replace"), digest_size=16).hexdigest()

    @property
    def name(self) -> str:
        """What a file of it is called here: the last part of its path; "" where that gives no name."""
        last = unquote(urlsplit(self.text).path).rstrip("/").rpartition("/")[2]
        name = _NO_NAME.sub("_", last)[-_LONGEST_NAME:]
        return "" if name.strip("._") == "" else name

    @property
    def suffixes(self) -> str:
        """Of its name, two at most, with their points."""
        found = _SUFFIXES.search(self.name)
        return found[1].lower() if found else ""

    def beside(self, suffix: str) -> Address | None:
        """The address of a file beside it; None where that would need a signature of its own."""
        parts = urlsplit(self.text)
        if (self.http and parts.query) or not self.name:
            return None
        return Address(parts._replace(path=parts.path + suffix).geturl())

    def scrub(self, text: str) -> str:
        """What a library said, without what must not be shown of this address."""
        parts = urlsplit(self.text)
        user = parts.netloc.rpartition("@")[0]
        text = text.replace(self.text, self.shown)
        for secret in (parts.query, user, user.partition(":")[2], *(value for _, value in parse_qsl(parts.query))):
            if len(secret) > 3:
                text = text.replace(secret, "…")
        return printable(text)


def is_address(text: str | os.PathLike[str]) -> bool:
    """Whether blendrun reads and writes there by itself."""
    return isinstance(text, str) and _ADDRESS.match(text) is not None


def parse_address(text: str) -> Address:
    """Raises UsageError where it is none that can be reached: no host, no name, a wrong port, a key before a bucket."""
    address = Address(text.strip())
    try:
        parts = urlsplit(address.text)
        parts.port  # noqa: B018  # raises where it is no number
    except ValueError:
        raise UsageError(f"an address that begins with {address.scheme}:// cannot be read; is it whole?") from None
    if not parts.hostname:
        raise UsageError(f"{address.shown} names no {'host' if address.http else 'bucket'}")
    if not address.http and not parts.path.strip("/"):
        raise UsageError(f"{address.shown} names a bucket; name a file in it")
    if not address.http and "@" in parts.netloc and address.scheme not in ("abfs", "abfss", "az"):
        raise UsageError(f"{address.shown} has a user before its bucket; keys go into the environment")
    return address


def shown(name: str) -> str:
    """An input or an output as it may be written anywhere: an address without its secrets, else a path as text."""
    if is_address(name):
        return Address(name.strip()).shown
    return os.fsencode(name).decode(errors="replace")


def local_paths(names: Iterable[str]) -> tuple[Path, ...]:
    """Those of the inputs that are files here: neither stdin nor addresses."""
    return tuple(Path(name) for name in names if name != "-" and not is_address(name))


def file_name(name: str) -> str:
    """What an input is called, without its folder: of an address, without what is secret in it."""
    return Address(name.strip()).name if is_address(name) else Path(name).name

"""GET to a file, from where it stopped, and PUT of one, over http and https.

The address is the user's own word, as an argument of curl is: any host may be meant, and proxies of the environment are
used. Redirects are followed by hand, so that none leaves https, none takes a PUT for a GET, and none leads from a
public address to one that is not: that is not the user's word.
"""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from blendrun.backoff import retry_after
from blendrun.remote.address import Address
from blendrun.remote.part import Part, Version
from blendrun.remote.public import is_public
from blendrun.remote.tries import ChangedError, MissingError, PassingError, RefusedError, RemoteError
from blendrun.text import cut, printable

if TYPE_CHECKING:
    import httpx

CONNECT_S = 10.0
# Without a byte in either direction, and for the answer to a whole file that was sent.
SILENT_S, ANSWER_S = 60.0, 600.0
_REDIRECTS = 5
_CHUNK_BYTES = 1 << 18
_MOVED = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429)
_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")
# How stores name an error; the rest of what they say repeats the signature.
_CODE = re.compile(rb"<Code>([A-Za-z]{1,60})</Code>")
_CODE_BYTES = 2048
# Azure's blobs are made by PUT only with this.
_AZURE = re.compile(r"\.blob\.(core|storage)\.")


def get(address: Address, part: Part, known: Version | None) -> bool:
    """What is there, into `part`, from where that stops if it is the same still.

    known: of a copy that is here. With it nothing is fetched, and the result is whether it is what is there.
    Raises RemoteError; OSError where the part cannot be written.
    """
    headers = {"Accept-Encoding": "identity"}
    if known is not None:
        headers |= {"If-None-Match": known.tag} if known.tag else {"If-Modified-Since": known.date}
    elif part.size and part.version is not None and part.version.strong:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.version.tag}
    with _errors(address), _client(SILENT_S) as client, _followed(client, "GET", address, headers) as response:
        if known is not None:
            return _same(response, known)
        if response.status_code == 416:
            part.restart(None)
            raise PassingError("has no more bytes where it stopped; it is fetched from its beginning")
        _check(response)
        offset, version = _offset(response, part), _version(response)
        if offset == 0:
            part.restart(version)
        with part.opened(offset) as file:
            # As it came, and when it came: what is packed is unpacked where inputs are.
            for piece in response.iter_raw():
                file.write(piece)
        _check_size(part)
    return True


def put(address: Address, path: Path) -> None:
    """The file at `path`, to the address. Raises RemoteError; OSError where the file cannot be read."""
    host = address.text.partition("://")[2].partition("/")[0]
    headers = {"x-ms-blob-type": "BlockBlob"} if _AZURE.search(host) else {}
    with (
        _errors(address),
        _client(ANSWER_S) as client,
        _followed(client, "PUT", address, headers, path) as response,
    ):
        _check(response)


@contextmanager
def _client(seconds: float) -> Iterator[httpx.Client]:
    import httpx

    timeout = httpx.Timeout(seconds, connect=CONNECT_S, write=SILENT_S)
    # It logs each address whole.
    log = logging.getLogger("httpx")
    log.addFilter(_nothing)
    try:
        with httpx.Client(timeout=timeout, headers={"User-Agent": "blendrun", "Accept": "*/*"}) as client:
            yield client
    finally:
        log.removeFilter(_nothing)


def _nothing(_: logging.LogRecord) -> bool:
    return False


@contextmanager
def _errors(address: Address) -> Iterator[None]:
    """What goes wrong on the way, in a clause."""
    import httpx

    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
        raise RemoteError("is no address that can be opened") from None
    except httpx.TimeoutException as error:
        what = "could not be connected to in time" if isinstance(error, httpx.ConnectTimeout) else "fell silent"
        raise PassingError(what) from None
    except httpx.HTTPError as error:
        said = printable(cut(address.scrub(str(error)), 300)) or type(error).__name__
        raise PassingError(f"was not to be reached, or broke off: {said}") from None


@contextmanager
def _followed(
    client: httpx.Client, method: str, address: Address, headers: dict[str, str], path: Path | None = None
) -> Iterator[httpx.Response]:
    """The response, behind redirects. path: of what is sent, from its beginning each time."""
    import httpx

    url, auth = httpx.URL(address.text), None
    if url.userinfo:
        auth = httpx.BasicAuth(url.username, url.password)
        url = url.copy_with(username=None, password=None)
    for _ in range(_REDIRECTS + 1):
        with _asked(client, method, url, headers, path, auth) as response:
            if response.status_code not in _MOVED or "Location" not in response.headers:
                yield response
                return
            if path is not None and response.status_code not in (307, 308):
                raise RemoteError(f"sends what is written there elsewhere ({response.status_code}), as a question")
            target = url.join(response.headers["Location"])
            if target.scheme not in ("http", "https") or (url.scheme == "https" and target.scheme != "https"):
                raise RemoteError(f"is redirected to {printable(cut(target.scheme, 20))}, which is not followed")
            if target.host != url.host and _inner(target.host) and not _inner(url.host):
                raise RemoteError(
                    "is redirected to an address that is not public, which is not followed; give that one"
                )
            if (target.host, target.port, target.scheme) != (url.host, url.port, url.scheme):
                # A password is for whom it was given to.
                auth = None
            url = target
    raise RemoteError(f"is redirected more than {_REDIRECTS} times")


def _inner(host: str) -> bool:
    """Whether a host is, or may be, of a network that is not public. What is not known here a proxy may know."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
        return not all(is_public(address.partition("%")[0]) for address in found)
    except (OSError, UnicodeError, ValueError):
        return False


@contextmanager
def _asked(
    client: httpx.Client,
    method: str,
    url: httpx.URL,
    headers: dict[str, str],
    path: Path | None,
    auth: httpx.BasicAuth | None,
) -> Iterator[httpx.Response]:
    given: dict[str, Any] = {} if auth is None else {"auth": auth}
    if path is None:
        with client.stream(method, url, headers=headers, **given) as response:
            yield response
        return
    with path.open("rb") as file:
        # Its length is the file's; a signature may be for that alone, so no other header is added.
        length = {"Content-Length": str(path.stat().st_size)}
        with client.stream(method, url, headers=headers | length, content=_pieces(file), **given) as response:
            yield response


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_CHUNK_BYTES):
        yield piece


def _check(response: httpx.Response) -> None:
    """Raises RemoteError for all but success."""
    status = response.status_code
    if 200 <= status < 300:
        return
    said = f"the server answered {status}{_reason(response)}"
    if status in (404, 410):
        raise MissingError(f"is not there: {said}")
    if status in (401, 403, 407):
        raise RefusedError(f"is refused: {said}")
    if status in _PASSING or status >= 500:
        raise PassingError(f"does not work now: {said}", retry_after(response.headers.get("Retry-After")))
    raise RemoteError(f"cannot be had: {said}")


def _reason(response: httpx.Response) -> str:
    """A store's name of the error, with a space and brackets."""
    data = b""
    for piece in response.iter_raw(_CODE_BYTES):
        data += piece
        if len(data) >= _CODE_BYTES:
            break
    found = _CODE.search(data[:_CODE_BYTES])
    return f" ({found[1].decode()})" if found else ""


def _same(response: httpx.Response, known: Version) -> bool:
    if response.status_code == 304:
        return True
    _check(response)
    # Not every server knows the question.
    found = _version(response)
    return found.strong and found == known


def _version(response: httpx.Response) -> Version:
    """Of the whole, of which this may be a part."""
    length = response.headers.get("Content-Length", "")
    size = int(length) if re.fullmatch("[0-9]{1,18}", length) else None
    if response.status_code == 206:
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        size = int(found[2]) if found is not None and found[2].isdigit() else None
    return Version(response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""), size)


def _offset(response: httpx.Response, part: Part) -> int:
    """Where the body begins. Raises PassingError where that is not what was asked for: then all is."""
    if response.status_code != 206:
        return 0
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    known = part.version
    same = known is not None and _version(response).tag in ("", known.tag)
    if found is None or int(found[1]) != part.size or not same:
        part.restart(None)
        raise PassingError("sent another part than was asked for; it is fetched from its beginning")
    return part.size


def _check_size(part: Part) -> None:
    """Raises PassingError, ChangedError."""
    size = None if part.version is None else part.version.size
    if size is None or part.size == size:
        return
    have = part.size
    if have > size:
        part.restart(None)
        raise ChangedError(f"has {size:,} bytes by its own word, and sent {have:,}")
    raise PassingError(f"broke off after {have:,} of {size:,} bytes")

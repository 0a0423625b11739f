"""The bytes of media that a request line only names: files below one folder, and addresses that may be reached.

The engine process never opens either. Each address of a name is checked and the connection is made to the one that was
checked, so that a name which changes in between leads nowhere; each redirect is checked again.
"""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING

from blendrun.endpoints.local_media import LARGEST_BYTES, Content, MediaError, check_size
from blendrun.remote.public import is_public
from blendrun.text import cut, printable

if TYPE_CHECKING:
    import httpx

FETCH_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_REDIRECTS = 5
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class MediaAccess:
    """files: the folder below which files may be read. urls: whether addresses may be fetched; private: those too that
    are not public (loopback, private and link-local networks). largest: bytes. seconds: for a fetch with its redirects.
    """

    files: Path | None = None
    urls: bool = False
    private: bool = False
    largest: int = LARGEST_BYTES
    seconds: float = FETCH_SECONDS


class Fetcher:
    """Fetches addresses, within `access`. One for a run, on one event loop."""

    def __init__(self, access: MediaAccess) -> None:
        import httpx

        self._access = access
        # Connections are not kept: one is made to an address, and another name may have the same. Proxies and netrc of
        # the environment are not asked: what they connect to nobody here could check.
        self._client = httpx.AsyncClient(
            trust_env=False,
            verify=httpx.create_ssl_context(trust_env=True),
            timeout=httpx.Timeout(None, connect=min(access.seconds, _CONNECT_SECONDS)),
            limits=httpx.Limits(max_keepalive_connections=0),
            headers={"Accept-Encoding": "identity", "User-Agent": "blendrun"},
            # A cookie that one line's server sets is no other line's.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def fetch(self, url: str, largest: int) -> Content:
        """What lies at an http or https address. Raises MediaError."""
        import httpx

        try:
            async with asyncio.timeout(self._access.seconds):
                return await self._follow(httpx.URL(url), largest)
        except TimeoutError:
            raise MediaError(f"has not come within {self._access.seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise MediaError(f"cannot be fetched: {printable(cut(str(error), 300)) or type(error).__name__}") from error

    async def _follow(self, url: httpx.URL, largest: int) -> Content:
        for _ in range(_REDIRECTS + 1):
            async with AsyncExitStack() as stack:
                response = await self._open(url, stack)
                if not response.has_redirect_location:
                    return await _body(response, largest)
                url = url.join(response.headers["Location"])
        raise MediaError(f"is redirected more than {_REDIRECTS} times")

    async def _open(self, url: httpx.URL, stack: AsyncExitStack) -> httpx.Response:
        """The head of the answer, from the first address that takes a connection."""
        import httpx

        if url.scheme not in ("http", "https") or not url.host:
            raise MediaError(f"leads to {str(url)[:80]!r}, which is no http or https address")
        refused = ""
        for address in await self._addresses(url):
            request = self._client.build_request(
                "GET",
                url.copy_with(host=address),
                headers={"Host": url.netloc.decode()},
                extensions={"sni_hostname": url.host},
            )
            try:
                response = await self._client.send(request, stream=True, follow_redirects=False)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                refused = str(error) or type(error).__name__
                continue
            stack.push_async_callback(response.aclose)
            return response
        raise MediaError(f"cannot be fetched: {refused}")

    async def _addresses(self, url: httpx.URL) -> list[str]:
        """All addresses of the host. Raises MediaError where one of them may not be reached."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(url.host, url.port or url.scheme, type=socket.SOCK_STREAM)
        except OSError as error:
            raise MediaError(f"cannot be fetched: {url.host} is not known ({error.strerror})") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not self._access.private and not is_public(address):
                raise MediaError(f"leads to {address}, which is no public address; --allow-private-media allows it")
        return addresses


async def _body(response: httpx.Response, largest: int) -> Content:
    if response.status_code != 200:
        raise MediaError(f"cannot be fetched: the server answered {response.status_code}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise MediaError("came compressed, which was not asked for")
    stated = response.headers.get("Content-Length", "")
    check_size(int(stated) if re.fullmatch("[0-9]{1,18}", stated) else 0, largest)
    data = bytearray()
    async for chunk in response.aiter_raw(_CHUNK_BYTES):
        data += chunk
        check_size(len(data), largest)
    return Content(bytes(data), response.headers.get("Content-Type", "").partition(";")[0].strip().lower())

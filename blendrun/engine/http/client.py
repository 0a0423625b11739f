"""The client of one server: its connections, and how many of them a process may have."""

from __future__ import annotations

import resource
import socket
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING

from blendrun.engine.http.settings import authorization

if TYPE_CHECKING:
    import httpx

_CONNECT_S = 10.0
# Descriptors of a process that are for other things: inputs (256 of them are held), journal, logs, libraries.
_OTHER_DESCRIPTORS = 400
_LEAST_CONNECTIONS, _MOST_CONNECTIONS = 64, 16_384
# A server whose machine is gone closes nothing: the kernel asks after 60 s of silence, six times, every 10 s.
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 6),
]


def http_client(server: str) -> httpx.AsyncClient:
    """For one server; its connections are kept, its redirects are not followed: they would have the key."""
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(
        base_url=server,
        headers=authorization(),
        timeout=httpx.Timeout(None, connect=_CONNECT_S),
        limits=limits,
        transport=httpx.AsyncHTTPTransport(limits=limits, socket_options=_KEEPALIVE),
        # Nothing that a server wants kept is kept.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


def most_connections() -> int:
    """Requests that a server may have at once, whatever it says: each is an open file of this process."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return min(max(allowed - _OTHER_DESCRIPTORS, _LEAST_CONNECTIONS), _MOST_CONNECTIONS)

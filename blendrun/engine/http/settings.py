"""What a person may say of servers: where they are, how much they may have at once, how long to wait for them."""

from __future__ import annotations

import math
import os
from urllib.parse import urlsplit

import msgspec

from blendrun.errors import UsageError

# Bytes of an answer, unpacked: as long as the longest line that is read.
ANSWER_BYTES = 64 << 20
_MOST_ANSWER_BYTES = 256 << 20
# What nobody means: beyond it a number is a slip of the pen.
_MOST, _MOST_SECONDS = 2**31 - 1, 3.2e8

# The variable that holds the servers' key: a command line is read by everybody on the machine.
KEY_VARIABLE = "BLENDRUN_API_KEY"


class HttpSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Set with --engine-arg. Of each server.

    concurrency: requests that it has at once; None for a little more than it says it runs, or 64 where it says nothing.
    tokens: of those requests together, prompt and expected answer; None for no limit. model: name to ask for; None for
    the one that is served. timeout: seconds for one answer. tries: of a request that the server fails. backoff: seconds
    before the second try at most; twice as long before each one after it. wait: seconds for which a server may be away,
    or refuse everything. max_total_tokens: of its KV pool, max_running_requests: that
    it decodes at once, where it does not tell. answer_bytes: of one answer, unpacked, at most; a longer one is an error
    line. hardware: card of its device, for the plan.
    """

    concurrency: int | None = None
    tokens: int | None = None
    model: str | None = None
    timeout: float = 3600.0
    tries: int = 5
    backoff: float = 0.5
    wait: float = 300.0
    max_total_tokens: int | None = None
    max_running_requests: int | None = None
    answer_bytes: int = ANSWER_BYTES
    hardware: str | None = None

    def __post_init__(self) -> None:
        for name in (
            "concurrency",
            "tokens",
            "max_total_tokens",
            "max_running_requests",
            "timeout",
            "tries",
            "backoff",
            "answer_bytes",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0")
            if value is not None and not value <= _MOST:
                raise ValueError(f"{name} must be at most {_MOST:,}")
        if not 0 <= self.wait <= _MOST_SECONDS or not math.isfinite(self.timeout):
            raise ValueError("wait must be 0 or more, and nobody waits for ten years")
        if self.answer_bytes > _MOST_ANSWER_BYTES:
            raise ValueError(f"answer_bytes must be at most {_MOST_ANSWER_BYTES:,}")

    @classmethod
    def from_arguments(cls, arguments: dict[str, object]) -> HttpSettings:
        """Raises UsageError for an unknown or impossible argument."""
        try:
            return msgspec.convert(arguments, cls)
        except (msgspec.ValidationError, ValueError) as error:
            raise UsageError(f"--engine-arg for servers: {error}") from error


def parse_servers(given: str) -> tuple[str, ...]:
    """`http://host:port,...` as base addresses without /v1; () for what is no address. Raises UsageError."""
    if "://" not in given:
        return ()
    found = []
    for text in given.split(","):
        address = text.strip()
        try:
            parts = urlsplit(address)
            parts.port  # noqa: B018  # raises where it is no number
        except ValueError as error:
            raise UsageError(f"--engine {address}: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"--engine {address}: give addresses such as http://host:30000, separated by commas")
        if parts.username or parts.password:
            raise UsageError(f"--engine: {parts.hostname} is given with a password; put a key in {KEY_VARIABLE}")
        if parts.query or parts.fragment:
            raise UsageError(f"--engine {address}: leave out what follows the path")
        found.append(address.rstrip("/").removesuffix("/v1").rstrip("/"))
    if twice := sorted({address for address in found if found.count(address) > 1}):
        raise UsageError(f"--engine names {twice[0]} twice: each server is one replica")
    return tuple(found)


def authorization() -> dict[str, str]:
    """Headers with the key, if there is one. Raises UsageError for one that no header can hold."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"{KEY_VARIABLE} holds what is no key: printable ASCII is expected")
    return {"Authorization": f"Bearer {key}"} if key else {}

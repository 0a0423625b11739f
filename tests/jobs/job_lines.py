"""Request lines for the tests, good ones and one of each bad kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from blendrun.jobs.index import index_jobs
from blendrun.jobs.job import Job
from blendrun.jobs.source import open_sources

CHAT = "/v1/chat/completions"


def body(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    return {"model": "default", "messages": [{"role": "user", "content": text}], **fields}


def line(custom_id: object = "a", **fields: Any) -> bytes:
    """A good line, unless `fields` say otherwise; a field set to ... is left out."""
    whole = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body(), **fields}
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


def write(path: Path, *lines: bytes, end: bytes = b"\n") -> Path:
    path.write_bytes(b"".join(part + end for part in lines))
    return path


def index(*paths: Path, **settings: Any) -> Job:
    spool = paths[0].parent / "spool"
    return index_jobs(open_sources(paths, spool), **settings)

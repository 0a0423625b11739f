"""A job of groups that share a passage, in an order that keeps no group together."""

from __future__ import annotations

from pathlib import Path

import orjson

from tests.runtime import requests


def write_job(path: Path, *, groups: int, each: int, tokens: int) -> list[str]:
    """tokens: of each answer. Returns the ids in order."""
    lines = [
        requests.chat(
            f"{group} {number}",
            [{"role": "user", "content": f"Text {group}. {requests.PASSAGE}\nSay {number} in words."}],
            max_tokens=tokens,
            ignore_eos=True,
        )
        for number in range(each)
        for group in range(groups)
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)) + b"\n")
    return [line["custom_id"] for line in lines]

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


def half_way(state: Path, answers: int) -> bool:
    """Whether that many requests are answered and both engines of a run are at work, each with two at once."""
    journal, logs = state / "journal", [state / "steps.jsonl", state / "steps.2.jsonl"]
    if not all(path.exists() for path in (journal, *logs)):
        return False
    at_work = all(b'"decode_rows":2' in log.read_bytes() for log in logs)
    # One line is the header.
    return at_work and journal.read_bytes().count(b"\n") > answers

"""kill -9 of the server wherever its store changes: started again, every batch ends and every line is there once."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests import needs
from tests.service.killed import ForkedServer
from tests.service.server import ENDED, URL, ids_of, lines, reached

pytest.importorskip("starlette", reason="SGLang's web framework is not installed")

NAMES, MANY = [f"r{place}" for place in range(4)], [f"m{place}" for place in range(200)]
QUICK = {
    "answered": lines(NAMES) + lines(["bad"], temperature=-1),
    "cancelled": lines(NAMES),
    "failed": b"nope\n",
}
SLOW = {"answered": lines(NAMES), "cancelled": lines(MANY), "expired": lines(MANY)}
JOINED = {"answered": lines(MANY), "joins": lines(NAMES)}
UNDER_WAY = ("in_progress", "cancelling", "finalizing", *ENDED)
ENDS = {"answered": ("completed",), "joins": ("completed",), "cancelled": ("completed", "cancelled")}
# A minute for a job of many lines, which nobody waits for.
PACED: dict[str, Any] = {"engine_args": {"slots": 1, "real_time": 1.0}, "drain_timeout": 0.1}


@dataclass
class Sender:
    """A client that goes on until all of its batches have ended, whatever becomes of the server. By name."""

    contents: dict[str, bytes]
    files: dict[str, str] = field(default_factory=dict)
    batches: dict[str, str] = field(default_factory=dict)
    # How each ended, and its lines.
    ends: dict[str, tuple[str, list[str]]] = field(default_factory=dict)

    def send(self, client: OpenAI) -> None:
        """Raises openai.APIConnectionError where the server has died."""
        # One whose answer got lost is there all the same.
        self.batches |= {(each.metadata or {})["name"]: each.id for each in client.batches.list()}
        for name, content in self.contents.items():
            if name not in self.files:
                self.files[name] = client.files.create(file=(name, io.BytesIO(content)), purpose="batch").id
            if name == "joins":
                # Its job is under way then.
                reached(client, client.batches.retrieve(self.batches["answered"]), UNDER_WAY, 1)
            if name not in self.batches:
                window: Any = "1s" if name == "expired" else "24h"
                made = client.batches.create(
                    input_file_id=self.files[name],
                    endpoint=URL,
                    completion_window=window,
                    metadata={"name": name},
                )
                self.batches[name] = made.id
        self._cancel(client)
        for name, asked in self.batches.items():
            found = reached(client, client.batches.retrieve(asked), ENDED)
            names = [each for file in (found.output_file_id, found.error_file_id) for each in ids_of(client, file)]
            self.ends[name] = found.status, names
            if found.status == "expired" and found.error_file_id is not None:
                errors = client.files.content(found.error_file_id).text.splitlines()
                assert {json.loads(line)["error"]["code"] for line in errors} == {"batch_expired"}

    def _cancel(self, client: OpenAI) -> None:
        if (name := self.batches.get("cancelled")) is None:
            return
        if self.contents is SLOW:
            # Its job is under way then.
            reached(client, client.batches.retrieve(name), UNDER_WAY, 1)
        try:
            client.batches.cancel(name)
        except openai.ConflictError:
            # It was answered before.
            assert client.batches.retrieve(name).status in ("finalizing", *ENDED)


def sent(
    store: Path, sender: Sender, kill_at: int | str, run: dict[str, Any], then: dict[str, Any] | None = None
) -> list[str] | None:
    """Statuses of batches on the disk when the server died; None where it lived. sender: has all then.

    then: options behind the death, if others.
    """
    given = {"engine": "replay", **run}
    server = ForkedServer(store, kill_at, given)
    try:
        sender.send(server.client)
        return None
    except openai.APIConnectionError:
        server.wait_until_gone()
    finally:
        server.end()
    dead = [json.loads(path.read_text())["status"] for path in (store / "batches").glob("*.json")]
    server = ForkedServer(store, None, given if then is None else {"engine": "replay", **then})
    try:
        sender.send(server.client)
    finally:
        server.end()
    return dead


def check(sender: Sender, store: Path) -> None:
    """Every batch has ended, and every line is there once."""
    for name, (status, ids) in sender.ends.items():
        wanted = [json.loads(line)["custom_id"] for line in sender.contents[name].splitlines() if line != b"nope"]
        assert len(ids) == len(set(ids)), (name, ids)
        assert set(ids) <= set(wanted), (name, ids)
        if status in ("completed", "expired"):
            assert set(ids) == set(wanted), (name, status, ids)
        assert status in ENDS.get(name, (name,))
    assert len(sender.ends) == len(sender.contents)
    # Nothing lies about that no file object tells of.
    files = {path.stem for path in (store / "files").glob("*.json")}
    assert {path.stem for path in (store / "files").glob("*.content")} == files


@pytest.mark.parametrize("status", ["processed", "validating", "in_progress", "finalizing", "completed", "failed"])
def test_behind_each_status(tmp_path: Path, status: str) -> None:
    sender = Sender(QUICK)
    dead = sent(tmp_path / "store", sender, status, {})
    assert dead is not None
    assert status in (*dead, "processed")
    check(sender, tmp_path / "store")


@pytest.mark.parametrize("status", ["cancelling", "cancelled", "expired"])
def test_behind_each_status_in_the_middle_of_a_job(tmp_path: Path, status: str) -> None:
    sender = Sender(SLOW)
    dead = sent(tmp_path / "store", sender, status, PACED)
    assert dead is not None
    assert status in dead
    assert (sender.ends["cancelled"][0], sender.ends["expired"][0]) == ("cancelled", "expired")
    check(sender, tmp_path / "store")


def test_as_a_batch_joins_a_job(tmp_path: Path) -> None:
    sender = Sender(JOINED)
    dead = sent(tmp_path / "store", sender, "joined", PACED, then={})
    assert dead == ["in_progress", "in_progress"]
    check(sender, tmp_path / "store")


@pytest.mark.skipif("BLENDRUN_KILLS" not in os.environ, reason=needs.KILLS)
@pytest.mark.parametrize(("scene", "run"), [(QUICK, {}), (SLOW, PACED), (JOINED, PACED)])
def test_wherever_the_store_changes(tmp_path: Path, scene: dict[str, bytes], run: dict[str, Any]) -> None:
    statuses, kill_at = set[str](), 0
    while True:
        store, sender = tmp_path / f"{kill_at}" / "store", Sender(scene)
        store.parent.mkdir()
        dead = sent(store, sender, kill_at, run, then={} if scene is JOINED else None)
        check(sender, store)
        if dead is None:
            break
        statuses |= set(dead)
        kill_at += 1
    assert kill_at > len(statuses) >= 4
    sys.stderr.write(f"{kill_at} kills, batches were then {sorted(statuses)}\n")

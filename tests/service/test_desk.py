"""Whose turn it is: batches that go together, that end before their job does, and that join one that runs."""

from __future__ import annotations

import errno
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from blendrun.backends import host as hosts
from blendrun.backends.host import Ended, Host
from blendrun.backends.options import RunOptions
from blendrun.planner.joining import Joining
from blendrun.service.desk import Desk
from blendrun.service.jobs import Jobs
from blendrun.service.named import Named
from blendrun.service.newcomers import Newcomer, Newcomers
from blendrun.service.objects import ENDED, BatchObject, new_id, now
from blendrun.service.store import Store
from blendrun.service.validation import Limits
from tests.answering_server import answering
from tests.service.killed import forked_host
from tests.service.server import URL, lines

ANSWER = {"choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}], "usage": {}}
_WAIT_S = 60.0


def until(ready: Callable[[], Any]) -> None:
    end = time.monotonic() + _WAIT_S
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.02)


def waiting_batch(file: str = "file-x") -> BatchObject:
    return BatchObject(
        id=new_id("batch_"),
        owner="me",
        endpoint=URL,
        input_file_id=file,
        completion_window="24h",
        created_at=now(),
        expires_at=now() + 86_400,
    )


class Held:
    """Answers what it is let: prompts that it has been asked, in order, and those that it answers."""

    def __init__(self) -> None:
        self.asked, self.free, self.go = list[str](), set[str](), threading.Condition()

    def __call__(self, path: str, body: Any) -> Any:
        prompt = body["messages"][0]["content"]
        with self.go:
            self.asked.append(prompt)
            self.go.wait_for(lambda: prompt in self.free or "all" in self.free, _WAIT_S)
        return ANSWER

    def let(self, *prompts: str) -> None:
        with self.go:
            self.free.update(prompts)
            self.go.notify_all()


class Sent:
    """A desk on an engine that holds its answers."""

    def __init__(self, store: Store, desk: Desk, held: Held) -> None:
        self.store, self.desk, self.held = store, desk, held

    def batch(self, *prompts: str) -> BatchObject:
        """A new one of these prompts, which are its custom_ids, too."""
        with self.store.new_file("me", "x", "batch") as (file, path):
            path.write_bytes(
                b"".join(lines([each], messages=[{"role": "user", "content": each}]) for each in prompts),
            )
        found = waiting_batch(file.id)
        assert self.desk.take(found)
        return found

    def answered(self, batch: BatchObject) -> list[str]:
        """custom_ids of its answers, in the order of its file, once it has ended."""
        until(lambda: batch.status in ENDED)
        file = self.store.files[batch.output_file_id or ""]
        return [json.loads(line)["custom_id"] for line in self.store.content(file).read_text().splitlines()]


@contextmanager
def desk(folder: Path, joining: Joining | None = None, host: Host | None = None) -> Iterator[Sent]:
    """joining: what is predicted of batches that come while a job runs. host: that runs jobs, if not as any."""
    # The next one, where the first is lost, is as any.
    held, forked, start = Held(), [forked_host()], hosts._start

    def predict(_: RunOptions, waiting: Sequence[Newcomer]) -> Joining | None:
        assert waiting
        return joining

    with answering("m", held) as address, pytest.MonkeyPatch.context() as patch:
        patch.setattr("blendrun.service.desk._GATHER_S", 0.3)
        patch.setattr(hosts, "_start", lambda: forked.pop() if forked else start())

        def options(job: Path, output: Path, _: int) -> RunOptions:
            given = {"engine": address, "inputs": (str(job),), "output": output, "accept_changes": True}
            return RunOptions.of({**given, "drain_timeout": 0.5})

        store = Store(folder / "store")
        jobs = Jobs(store, options, host or Host(), predict=predict)
        found = Desk(store, jobs, Limits(), Named(options(folder / "job", folder / "out", 1)))
        found.start()
        try:
            yield Sent(store, found, held)
        finally:
            found.stop()
            held.let("all")
            store.close()
            for unused in forked:
                unused.end()


def test_those_that_wait_are_one_job_and_each_ends_with_its_last_answer(tmp_path: Path) -> None:
    with desk(tmp_path) as sent:
        quick, slow = sent.batch("q1", "q2"), sent.batch("s1", "s2")
        until(lambda: len(sent.held.asked) == 4)
        assert quick.run == slow.run
        sent.held.let("q1", "q2", "s1")
        assert sorted(sent.answered(quick)) == ["q1", "q2"]
        assert quick.status == "completed"
        assert slow.status == "in_progress"
        sent.held.let("s2")
        assert sent.answered(slow) == ["s1", "s2"]
        assert (quick.request_counts.completed, slow.request_counts.completed) == (2, 2)


def test_a_later_batch_joins_where_that_pays_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    with desk(tmp_path, Joining(apart=1000.0, together=10.0, first=500.0, longest=0.1)) as sent:
        first = sent.batch("f1", "f2")
        until(lambda: len(sent.held.asked) == 2)
        sent.held.let("f1")
        until(lambda: first.request_counts.completed == 1)
        later = sent.batch("l1")
        # The first one's held request was cut off, and comes again with the newcomer.
        until(lambda: sorted(sent.held.asked[2:]) == ["f2", "l1"])
        assert later.run == first.run
        sent.held.let("all")
        assert sent.answered(first) == ["f1", "f2"]
        assert sent.answered(later) == ["l1"]
        assert sent.held.asked.count("f1") == 1


def test_one_that_does_not_go_with_the_job_after_all_costs_it_nothing(tmp_path: Path) -> None:
    class Refuses(Host):
        def run(self, options: RunOptions) -> Ended:
            refused = b'"custom_id":"1:' in Path(options.inputs[0]).read_bytes()
            return Ended(2, "not these two") if refused else super().run(options)

    joining = Joining(apart=1000.0, together=10.0, first=500.0, longest=0.1)
    with desk(tmp_path, joining, Refuses()) as sent:
        first = sent.batch("f1", "f2")
        until(lambda: len(sent.held.asked) == 2)
        sent.held.let("f1")
        until(lambda: first.request_counts.completed == 1)
        later = sent.batch("l1")
        until(lambda: later.alone)
        sent.held.let("all")
        assert sent.answered(first) == ["f1", "f2"]
        assert sent.answered(later) == ["l1"]
        assert sent.held.asked.count("f1") == 1


@pytest.mark.parametrize("damage", ["emptied", "gone"])
def test_a_note_of_a_job_that_is_lost_costs_no_batch(tmp_path: Path, damage: str) -> None:
    with desk(tmp_path) as sent:
        before = sent.batch("a", "b")
        until(lambda: len(sent.held.asked) == 2)
    (note,) = (tmp_path / "store" / "runs").glob("*/run.json")
    if damage == "gone":
        shutil.rmtree(note.parent)
    else:
        note.write_bytes(b"")
    with desk(tmp_path) as sent:
        sent.held.let("all")
        assert sorted(sent.answered(sent.store.batches[before.id])) == ["a", "b"]


def test_a_disk_that_is_full_for_a_while_as_a_job_begins_and_as_its_batch_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, full = Store._keep, {"batches": 0, "files": 0}

    def no_room(store: Store, kind: str, found: Any) -> None:
        if full[kind]:
            full[kind] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        keep(store, kind, found)

    monkeypatch.setattr(Store, "_keep", no_room)
    for module in ("jobs", "desk"):
        monkeypatch.setattr(f"blendrun.service.{module}._PAUSE_S", 0.01)
    with desk(tmp_path) as sent:
        batch = sent.batch("a", "b")
        until(lambda: batch.status == "in_progress")
        full |= {"batches": 5}
        until(lambda: len(sent.held.asked) == 2)
        assert full["batches"] == 0
        full |= {"batches": 2, "files": 3}
        sent.held.let("all")
        assert sent.answered(batch) == ["a", "b"]
        assert (batch.status, batch.errors, full) == ("completed", None, {"batches": 0, "files": 0})
        assert [path.name for path in (tmp_path / "store" / "runs").glob("run-*")] == [batch.run]
    assert sorted(sent.held.asked) == ["a", "b"]


JOB = RunOptions.of({"inputs": ("job.jsonl",), "model": "m"})
DAY = [now() + 86_400]


@pytest.mark.parametrize(
    ("joining", "joins"),
    [
        (Joining(apart=100.0, together=50.0, first=50.0, longest=1.0), True),
        (None, False),
        (Joining(apart=100.0, together=99.0, first=50.0, longest=0.1), False),
        (Joining(apart=1000.0, together=960.0, first=500.0, longest=1.0), False),
        # Saved, and lost again with the engine, which is cut off and loaded anew.
        (Joining(apart=100.0, together=50.0, first=50.0, longest=30.0), False),
        (Joining(apart=100.0, together=50.0, first=50.0, longest=1.0, held=30.0), False),
        # What it has takes a while, in which it works on.
        (Joining(apart=100.0, together=50.0, first=50.0, longest=1.0, held=19.0), True),
        # Behind the day that the job has.
        (Joining(apart=200_000.0, together=100_000.0, first=1000.0, longest=1.0), False),
    ],
)
def test_they_join_where_that_pays(joining: Joining | None, joins: bool) -> None:
    asked, looked = list[Sequence[Newcomer]](), threading.Event()

    def predict(_: RunOptions, waiting: Sequence[Newcomer]) -> Joining | None:
        asked.append(waiting)
        looked.set()
        return joining

    newcomers = Newcomers(JOB, predict, DAY)
    waiting = [Newcomer(waiting_batch(), 1, Path("content"))]
    assert not newcomers.are_to_join([])
    assert not newcomers.are_to_join(waiting)
    assert looked.wait(_WAIT_S)
    assert newcomers._thread is not None
    newcomers._thread.join()
    assert newcomers.are_to_join(waiting) is joins
    assert newcomers.take() == (tuple(waiting) if joins else ())
    # Looked at once.
    assert asked == [tuple(waiting)]

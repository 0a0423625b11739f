"""Answers kept between runs: taken under other ids and from other files, bounded, and never a damage to a run."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from blendrun.endpoints.base import Usage
from blendrun.errors import OutputUnavailableError
from blendrun.events import Event, Note, ignore
from blendrun.jobs.same import Sameness
from blendrun.names import Dedupe
from blendrun.runner.run import execute
from blendrun.runner.settings import CacheSettings
from blendrun.store.answer_cache import NAME, AnswerCache, KeptAnswer
from blendrun.store.summary import Summary
from tests.needs import needs
from tests.runner.runner_job import line, lines_of, no_engine, run, settings, write
from tests.runner.test_copies import Counting

SIZE = 64 << 20
SAME = Sameness(keeps=True)


def counted(out: Path, jobs: Path, folder: Path, **changes: Any) -> tuple[Summary, list[int]]:
    asked: list[int] = []
    given: dict[str, Any] = {"same": SAME, "cache": CacheSettings(folder, SIZE), "engine": lambda: Counting(asked)}
    return run(out, jobs, **given | changes), asked


def asking(path: Path, *questions: int, prefix: str = "id", **body: Any) -> Path:
    given = {"temperature": 0} | body
    return write(
        path, *(line(f"{prefix} {place}", f"question {each}", **given) for place, each in enumerate(questions))
    )


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def answer(number: int, size: int = 100) -> KeptAnswer:
    return KeptAnswer(b'{"text":"%d%s"}' % (number, b"x" * size), Usage(1, 0, 2), ("stop",))


def filled(folder: Path, numbers: range, most: int = SIZE) -> AnswerCache:
    cache = AnswerCache(folder, most)
    for number in numbers:
        cache.put(key(number), answer(number))
    cache.close()
    return cache


class TestRuns:
    def test_an_answer_comes_under_another_id_in_another_file(self, tmp_path: Path, out: Path) -> None:
        first, _ = counted(out, asking(tmp_path / "one", *range(10)), tmp_path / "cache")
        second = asking(tmp_path / "two", 20, 5, 21, 6, 5, prefix="other")
        summary, asked = counted(out.with_name("second"), second, tmp_path / "cache")
        assert asked == [0, 2]
        assert (summary.taken.cache, summary.taken.copies, summary.counts.completed) == (2, 1, 5)
        answers = lines_of(out.with_name("second"))
        assert [each["custom_id"] for each in answers] == [f"other {place}" for place in range(5)]
        assert [each["id"].partition("_")[2].split("_")[2:] for each in answers] == [
            [],
            ["cache"],
            [],
            ["cache"],
            ["copy"],
        ]
        assert answers[1]["response"]["body"] == lines_of(out)[5]["response"]["body"]
        # No engine was asked for them.
        own = [answers[0], answers[2]]
        assert summary.tokens.output == sum(each["response"]["body"]["usage"]["completion_tokens"] for each in own)
        assert first.taken.cache == 0

    def test_where_all_are_kept_no_engine_is_needed(self, tmp_path: Path, out: Path) -> None:
        counted(out, asking(tmp_path / "one", *range(10)), tmp_path / "cache")
        summary, _ = counted(out.with_name("b"), asking(tmp_path / "two", 3, 4), tmp_path / "cache", engine=no_engine)
        assert summary.taken.cache == 2

    @pytest.mark.parametrize(
        "changes",
        [
            {"model_identity": "another"},
            {"answer_settings": {"dtype": "float16"}},
            {"cache": ("sglang 1",)},
        ],
    )
    def test_what_decides_an_answer_keeps_answers_apart(
        self, tmp_path: Path, out: Path, changes: dict[str, Any]
    ) -> None:
        folder = tmp_path / "cache"
        counted(out, asking(tmp_path / "one", 1, 2), folder)
        if "cache" in changes:
            changes = {"cache": CacheSettings(folder, SIZE, changes["cache"])}
        for name, expected in (("b", [0, 1]), ("c", [])):
            assert (
                counted(out.with_name(name), asking(tmp_path / f"{name}-jobs", 1, 2), folder, **changes)[1] == expected
            )
        body = asking(tmp_path / "d", 1, 2, max_tokens=9)
        assert counted(out.with_name("e"), body, folder)[1] == [0, 1]

    def test_drawn_answers_and_errors_are_not_kept(self, tmp_path: Path, out: Path) -> None:
        folder = tmp_path / "cache"
        drawn = asking(tmp_path / "drawn", 1, 2, temperature=1)
        assert counted(out, drawn, folder)[1] == [0, 1]
        assert counted(out.with_name("b"), drawn, folder)[1] == [0, 1]
        on = Sameness(Dedupe.ON, keeps=True)
        assert counted(out.with_name("c"), drawn, folder, same=on)[1] == [0, 1]
        assert counted(out.with_name("d"), drawn, folder, same=on)[1] == []
        assert counted(out.with_name("e"), drawn, folder)[1] == [0, 1]
        jobs = asking(tmp_path / "jobs", 1, 2)
        failing = {"engine": {"fail_every": 2}}
        assert counted(out.with_name("f"), jobs, folder, **failing)[0].counts.failed == 1
        assert counted(out.with_name("g"), jobs, folder)[1] == [1]

    def test_without_dedupe_copies_are_asked_and_kept_answers_are_taken(self, tmp_path: Path, out: Path) -> None:
        off = Sameness(Dedupe.OFF, keeps=True)
        jobs = asking(tmp_path / "jobs", 1, 1, 2)
        assert counted(out, jobs, tmp_path / "cache", same=off)[1] == [0, 1, 2]
        assert counted(out.with_name("b"), jobs, tmp_path / "cache", same=off)[0].taken.cache == 3

    def test_an_answer_that_breaks_its_form_does_so_when_it_is_taken(self, tmp_path: Path, out: Path) -> None:
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
        jobs, asked = asking(tmp_path / "jobs", 1, 1, response_format=form), list[int]()
        given: dict[str, Any] = {"same": SAME, "cache": CacheSettings(tmp_path / "cache", SIZE), "engine": "sglang"}

        def looked_at(name: str, **changes: Any) -> Summary:
            return execute(settings(out.with_name(name), jobs, **given | changes), lambda *_: Counting(asked), ignore)

        assert looked_at("a").unkept == 2
        assert looked_at("b").unkept == 2
        listed = lines_of(out.with_name("b.blendrun") / "unkept.jsonl")
        assert [each["id"] for each in listed] == [each["id"] for each in lines_of(out.with_name("b"))]
        assert looked_at("c", check_answers=True).error_codes == {"invalid_answer": 2}
        assert asked == [0]

    @pytest.mark.parametrize("damage", ["cut", "noise", "bits", "empty", "other"])
    def test_damage_costs_the_cache_alone(self, tmp_path: Path, out: Path, damage: str) -> None:
        folder = tmp_path / "cache"
        jobs = asking(tmp_path / "jobs", *range(50))
        counted(out, jobs, folder)
        path = folder / NAME
        data = path.read_bytes()
        if damage == "other":
            with sqlite3.connect(path) as other:
                other.execute("pragma user_version = 99")
            other.close()
        else:
            flipped = bytearray(data)
            for place in range(5000, len(data), 997):
                flipped[place] ^= 0x5A
            path.write_bytes({"cut": data[:3000], "noise": b"x" * 9000, "bits": bytes(flipped), "empty": b""}[damage])
        events: list[Event] = []
        summary, asked = counted(out.with_name("b"), jobs, folder, events=events)
        assert summary.counts.completed == 50
        expected, found = lines_of(out), lines_of(out.with_name("b"))
        assert [each["response"]["body"] for each in found] == [each["response"]["body"] for each in expected]
        assert summary.taken.cache == 50 - len(asked)
        told = [event.text for event in events if isinstance(event, Note) and event.warning]
        assert bool(told) == (damage in ("cut", "noise", "other")) or damage == "bits"
        if damage != "other":
            # It is whole again.
            assert counted(out.with_name("c"), jobs, folder)[1] == []

    def test_a_folder_of_somebody_else_or_a_link_is_refused(self, tmp_path: Path, out: Path) -> None:
        jobs, place = asking(tmp_path / "jobs", 1), tmp_path / "place"
        place.mkdir()
        link = tmp_path / "link"
        link.symlink_to(place)
        with pytest.raises(OutputUnavailableError, match="link"):
            counted(out, jobs, link)
        (tmp_path / "file").write_text("x")
        with pytest.raises(OutputUnavailableError, match="--cache"):
            counted(out, jobs, tmp_path / "file")
        place.chmod(0o755)
        counted(out.with_name("b"), jobs, place)
        assert place.stat().st_mode & 0o777 == 0o700
        assert (place / NAME).stat().st_mode & 0o777 == 0o600


class TestFile:
    def test_the_file_stays_within_its_bound_and_what_was_used_stays(self, tmp_path: Path) -> None:
        most = 1 << 20
        filled(tmp_path / "cache", range(200), most)
        for begin in range(1000, 13_000, 1000):
            # Somebody takes these again and again.
            assert len(list(AnswerCache(tmp_path / "cache", most).take([key(number) for number in range(50)]))) == 50
            time.sleep(0.002)
            filled(tmp_path / "cache", range(begin, begin + 1000), most)
            assert (tmp_path / "cache" / NAME).stat().st_size <= 1.1 * most
        cache = AnswerCache(tmp_path / "cache", most)
        assert all(cache.known([key(number) for number in range(50)]))
        assert not any(cache.known([key(number) for number in range(50, 200)]))
        assert sum(cache.known([key(number) for number in range(1000, 13_000)])) > 2000

    def test_a_smaller_bound_shrinks_it(self, tmp_path: Path) -> None:
        filled(tmp_path / "cache", range(10_000))
        before = (tmp_path / "cache" / NAME).stat().st_size
        filled(tmp_path / "cache", range(20_000, 20_001), 1 << 20)
        assert before > 1 << 20 >= (tmp_path / "cache" / NAME).stat().st_size

    def test_what_is_too_large_is_not_kept(self, tmp_path: Path) -> None:
        cache = AnswerCache(tmp_path / "cache", 1 << 20)
        cache.put(key(1), answer(1, 1 << 17))
        cache.close()
        assert cache.known([key(1)]) == [False]

    @pytest.mark.parametrize(
        "body", [b"", b"no JSON", b"[1]", b"7", b'{"a":1}\n{"custom_id":"other"}', b'{"a":1} 2', b"[" * 5000]
    )
    def test_what_is_no_object_on_one_line_is_not_an_answer(self, tmp_path: Path, body: bytes) -> None:
        """Whatever its checksum says: a line of the output is made around it."""
        cache = filled(tmp_path / "cache", range(3))
        self.plant(cache, key(1), msgspec.msgpack.encode(KeptAnswer(body, Usage(1, 0, 2), ("stop",))))
        assert [place for place, _ in cache.take([key(number) for number in range(3)])] == [0, 2]
        assert not cache.notes
        assert cache.known([key(1)]) == [False]

    def test_one_that_is_larger_than_any_that_is_kept_is_not_read(self, tmp_path: Path) -> None:
        most = 1 << 21
        cache = filled(tmp_path / "cache", range(3), most)
        self.plant(cache, key(1), msgspec.msgpack.encode(answer(1, most)))
        assert [place for place, _ in cache.take([key(number) for number in range(3)])] == [0, 2]

    def test_the_largest_that_is_kept_is_taken(self, tmp_path: Path) -> None:
        most = 1 << 20
        cache = AnswerCache(tmp_path / "cache", most)
        largest = answer(1, most // 16 - 12)
        assert len(largest.body) == most // 16
        cache.put(key(1), largest)
        cache.close()
        assert list(cache.take([key(1)])) == [(0, largest)]

    def test_large_ones_are_not_held_together(self, tmp_path: Path) -> None:
        cache = AnswerCache(tmp_path / "cache", 1 << 30)
        for number in range(12):
            cache.put(key(number), answer(number, 3 << 20))
        cache.close()
        groups = [len(some) for some in cache._together([key(number) for number in range(14)])]
        assert groups == [2] * 6
        assert [place for place, _ in cache.take([key(number) for number in range(14)])] == list(range(12))

    @pytest.mark.parametrize("name", [NAME, f"{NAME}-journal"])
    @pytest.mark.parametrize("what", ["link", "owner"])
    def test_a_file_that_somebody_put_there_first_is_not_used(self, tmp_path: Path, name: str, what: str) -> None:
        if what == "owner" and os.geteuid() != 0:
            pytest.skip(needs("root, to make a file of another user", "run as root"))
        cache = filled(tmp_path / "cache", range(3))
        planted, victim = tmp_path / "cache" / name, tmp_path / "victim"
        victim.write_bytes(cache.path.read_bytes())
        before = victim.read_bytes()
        planted.unlink(missing_ok=True)
        if what == "link":
            planted.symlink_to(victim)
        else:
            planted.write_bytes(before)
            os.chown(planted, 12345, 12345)
        again = AnswerCache(tmp_path / "cache", SIZE)
        assert again.known([key(1)]) == [False]
        assert len(again.notes) == 1 and "is not a file of this user's own" in again.notes[0]
        again.put(key(7), answer(7))
        again.close()
        assert victim.read_bytes() == before

    @staticmethod
    def plant(cache: AnswerCache, key: bytes, data: bytes) -> None:
        with sqlite3.connect(cache.path) as other:
            changed = (zlib.crc32(key + data), data, key)
            other.execute("update answers set checksum = ?, answer = ? where key = ?", changed)
        other.close()

    def test_a_file_that_another_process_holds_is_waited_for(self, tmp_path: Path) -> None:
        cache = filled(tmp_path / "cache", range(3))
        other = sqlite3.connect(tmp_path / "cache" / NAME, isolation_level=None)
        other.execute("begin exclusive")
        cache.put(key(7), answer(7))
        cache.flush()
        assert not cache.notes
        other.execute("commit")
        other.close()
        cache.flush()
        assert cache.known([key(7)]) == [True]

    def test_killed_while_it_is_written_it_holds_what_it_gives(self, tmp_path: Path) -> None:
        folder = tmp_path / "cache"
        code = (
            "import itertools, sys; from pathlib import Path; from blendrun.endpoints.base import Usage\n"
            "from blendrun.store.answer_cache import AnswerCache, KeptAnswer\n"
            "cache = AnswerCache(Path(sys.argv[1]), 1 << 20); print(flush=True)\n"
            "for number in itertools.count(int(sys.argv[2])):\n"
            "    body = b'{\"text\":\"%d%s\"}' % (number, b'x' * 100)\n"
            "    cache.put(number.to_bytes(16, 'big'), KeptAnswer(body, Usage(1, 0, 2), ('stop',)))\n"
        )
        for kill in range(2):
            begin = kill * 1_000_000
            # Two at once.
            writers = [
                subprocess.Popen([sys.executable, "-c", code, folder, str(begin + own)], stdout=subprocess.PIPE)
                for own in (0, 500_000)
            ]
            for writer in writers:
                assert writer.stdout is not None
                writer.stdout.readline()
            time.sleep(0.05 + 0.1 * kill)
            for writer in writers:
                os.kill(writer.pid, signal.SIGKILL)
                writer.communicate()
            cache = filled(folder, range(5), 1 << 20)
            wanted = [key(begin + own + number) for own in (0, 500_000) for number in range(3000)]
            for place, kept in cache.take(wanted):
                number = int.from_bytes(wanted[place], "big")
                assert kept == answer(number)
            assert all(cache.known([key(number) for number in range(5)]))
            assert not cache.notes
        with sqlite3.connect(folder / NAME) as whole:
            assert whole.execute("pragma integrity_check").fetchone() == ("ok",)
        whole.close()

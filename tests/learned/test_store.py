"""What runs taught is kept: by engine, whole or not at all, by several runs at once; trouble with it ends no run."""

from __future__ import annotations

import dataclasses
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from blendrun.learned.base import Belief, EngineKey, Known
from blendrun.learned.store import StepStore, StepsUnavailableError

KEY = EngineKey("here", "cpu", "", "0123", 1, 2, 1, "{}", "small")
COUNT = 8


@pytest.fixture
def store(tmp_path: Path) -> StepStore:
    return StepStore.open(tmp_path / "deep" / "steps.sqlite3")


def known(runs: int = 1, updated: float = 100.0) -> Known:
    spread = np.arange(1, COUNT + 1).astype(np.float64) * 1e-3
    return Known(Belief(spread * runs, np.diag(spread**2) + 1e-7), runs, updated, 0.05, 12.5)


def keep(store: StepStore, what: Known, key: EngineKey = KEY) -> None:
    store.update(key, lambda _: what)


class TestRoundTrip:
    def test_what_is_kept_is_what_is_recalled(self, store: StepStore) -> None:
        keep(store, known())
        found = store.recall(KEY)
        assert found is not None
        assert found.belief.constants.tolist() == known().belief.constants.tolist()
        assert found.belief.covariance.tolist() == known().belief.covariance.tolist()
        assert (found.runs, found.updated, found.error, found.seconds) == (1, 100.0, 0.05, 12.5)

    @pytest.mark.parametrize(
        "changed",
        [
            {"host": "there"},
            {"platform": "gpu"},
            {"device": "H100"},
            {"model": "4567"},
            {"gpus": 2},
            {"threads": 1},
            {"replicas": 2},
            {"arguments": '{"kv_cache_dtype": "fp8"}'},
        ],
        ids=lambda changed: next(iter(changed)),
    )
    def test_each_engine_has_its_own(self, store: StepStore, changed: dict[str, object]) -> None:
        keep(store, known())
        other = dataclasses.replace(KEY, **changed)  # type: ignore[arg-type]
        assert store.recall(other) is None
        keep(store, known(2), other)
        assert [found.runs for found in (store.recall(KEY), store.recall(other)) if found] == [1, 2]

    def test_recalling_creates_nothing(self, store: StepStore) -> None:
        assert store.recall(KEY) is None
        assert store.engines("here") == []
        assert not store.path.parent.exists()

    def test_a_change_sees_what_was_there(self, store: StepStore) -> None:
        keep(store, known(1))
        seen: list[Known | None] = []

        def look(before: Known | None) -> None:
            seen.append(before)

        assert store.update(KEY, look) is None
        assert seen[0] is not None
        assert store.recall(KEY) is not None

    def test_engines_of_a_machine_are_listed_the_last_one_first(self, store: StepStore) -> None:
        keep(store, known(3, 100.0))
        keep(store, known(1, 200.0), dataclasses.replace(KEY, model="4567", name="large"))
        keep(store, known(1, 300.0), dataclasses.replace(KEY, host="there"))
        assert store.engines("here") == [("large", 1, 200.0, 0.05), ("small", 3, 100.0, 0.05)]

    def test_a_card_takes_a_few_hundred_bytes(self, store: StepStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("blendrun.learned.store._KEPT", 50)
        for number in range(80):
            keep(store, known(updated=float(number)), dataclasses.replace(KEY, model=f"{number}"))
        assert len(store.engines("here")) == 50
        assert store.engines("here")[0][2] == 79.0
        assert store.path.stat().st_size < 50 * 1000


class TestTrouble:
    def test_runs_that_end_together_all_count(self, store: StepStore) -> None:
        script = (
            "import sys; from pathlib import Path\n"
            "from tests.learned.test_store import KEY, known\n"
            "from blendrun.learned.store import StepStore\n"
            "for _ in range(20): StepStore.open(Path(sys.argv[1])).update("
            "KEY, lambda before: known(before.runs + 1 if before else 1))"
        )
        root = Path(__file__).parents[2]
        command = [sys.executable, "-c", script, str(store.path)]
        both = [subprocess.Popen(command, cwd=root) for _ in range(2)]
        assert [process.wait() for process in both] == [0, 0]
        found = store.recall(KEY)
        assert found is not None
        assert found.runs == 40

    @pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\0" + b"\xff" * 200])
    def test_a_damaged_file_is_reported(self, store: StepStore, content: bytes) -> None:
        store.path.parent.mkdir()
        store.path.write_bytes(content)
        if not content:
            # As a run leaves it that was killed before its first write.
            assert store.recall(KEY) is None
            return
        with pytest.raises(StepsUnavailableError, match=r"are left out: .*delete the file"):
            store.recall(KEY)
        with pytest.raises(StepsUnavailableError, match=r"are left out: .*delete the file"):
            keep(store, known())
        with pytest.raises(StepsUnavailableError, match=r"are left out: .*delete the file"):
            store.engines("here")

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("constants", np.full(COUNT, np.nan).tobytes()),
            ("constants", np.full(COUNT, -1.0).tobytes()),
            ("constants", b"short"),
            ("covariance", np.zeros(36).tobytes()),
            ("covariance", np.full(36, -1.0).tobytes()),
            ("runs", 0),
            ("updated", "yesterday"),
        ],
    )
    def test_impossible_numbers_are_reported(self, store: StepStore, column: str, value: object) -> None:
        keep(store, known())
        with sqlite3.connect(store.path) as connection:
            connection.execute(f"update engines set {column} = ?", (value,))
        connection.close()
        with pytest.raises(StepsUnavailableError, match="left out"):
            store.recall(KEY)

    def test_impossible_numbers_are_not_kept(self, store: StepStore) -> None:
        keep(store, known())
        bad = dataclasses.replace(known(), belief=Belief(np.full(COUNT, np.inf), np.eye(COUNT)))
        with pytest.raises(StepsUnavailableError, match="impossible numbers"):
            keep(store, bad)
        found = store.recall(KEY)
        assert found is not None
        assert np.isfinite(found.belief.constants).all()

    def test_a_file_of_a_later_version_is_neither_read_nor_written(self, store: StepStore) -> None:
        keep(store, known())
        with sqlite3.connect(store.path) as connection:
            connection.execute("pragma user_version = 99")
        connection.close()
        before = store.path.read_bytes()
        with pytest.raises(StepsUnavailableError, match="another version of blendrun"):
            store.recall(KEY)
        with pytest.raises(StepsUnavailableError, match="another version of blendrun"):
            keep(store, known(5))
        assert store.path.read_bytes() == before

    def test_a_folder_that_cannot_be_made_is_reported(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StepsUnavailableError, match="BLENDRUN_DATA"):
            keep(StepStore.open(tmp_path / "file" / "steps.sqlite3"), known())

    def test_a_read_only_file_can_still_be_recalled(self, store: StepStore) -> None:
        keep(store, known())
        store.path.chmod(0o444)
        assert store.recall(KEY) is not None

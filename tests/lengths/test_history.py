"""History: what one run records the next recalls; two may write at once; nothing wrong with it ends a command."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blendrun.database import data_folder
from blendrun.lengths.evidence import Recalled, octave
from blendrun.lengths.history import History, HistoryUnavailableError

DAY = 86400.0
MODEL = "0123456789abcdef"
KIND = 2**64 - 3


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History.open(tmp_path / "deep" / "history.sqlite3")


def record(history: History, lengths: list[float], *, kind: int = KIND, model: str = MODEL, now: float = 0.0) -> None:
    kinds = np.full(len(lengths), kind, dtype=np.uint64)
    history.record(model, kinds, np.array(lengths), np.ones(len(lengths), dtype=bool), now=now)


def recall(history: History, *kinds: int, model: str = MODEL, now: float = 0.0) -> Recalled:
    return history.recall(model, np.array(kinds, dtype=np.uint64), now=now)


def mean(found: Recalled, row: int = 0) -> float:
    return float(found.total[row].sum() / found.count[row].sum())


class TestRoundTrip:
    def test_a_run_is_recalled_by_model_and_kind(self, history: History) -> None:
        record(history, [10, 20, 60])
        record(history, [7], kind=5)
        record(history, [900], model="another")
        found = recall(history, 5, KIND, KIND, 77)
        assert found.cluster.tolist() == [5, KIND]
        assert found.count.sum(axis=1).tolist() == [1, 3]
        assert (mean(found), mean(found, 1)) == (7, 30)
        assert found.square[1].sum() == 100 + 400 + 3600

    def test_lengths_are_kept_by_octave(self, history: History) -> None:
        record(history, [0, 1, 2, 3, 4, 7, 8])
        assert recall(history, KIND).count[0, :5].tolist() == [1, 1, 2, 2, 1]

    def test_nothing_recorded_is_nothing_recalled_and_recalling_creates_nothing(self, history: History) -> None:
        assert len(recall(history, KIND)) == 0
        assert not history.path.parent.exists()
        record(history, [])
        assert not history.path.exists()

    def test_answers_cut_off_count_with_the_length_they_would_have_had(self, history: History) -> None:
        kinds = np.full(20, KIND, dtype=np.uint64)
        tokens = np.array([10.0] * 10 + [100.0] * 10)
        history.record(MODEL, kinds, tokens, np.array([True] * 10 + [False] * 10), now=0)
        found = recall(history, KIND)
        assert found.count.sum() == 20
        assert mean(found) > 55

    def test_a_kind_of_which_no_answer_finished_is_left_out(self, history: History) -> None:
        history.record(MODEL, np.array([KIND], dtype=np.uint64), np.array([5.0]), np.array([False]), now=0)
        assert len(recall(history, KIND)) == 0

    @given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
    def test_an_octave_holds_lengths_of_one_power_of_two(self, lengths: list[float]) -> None:
        bins = octave(np.array(lengths))
        for length, place in zip(lengths, bins.tolist(), strict=True):
            assert (length < 1) if place == 0 else (2.0 ** (place - 1) <= length < 2.0**place)


class TestAge:
    def test_thirty_days_halve_a_weight_and_leave_the_mean(self, history: History) -> None:
        record(history, [10, 30], now=0)
        found = recall(history, KIND, now=30 * DAY)
        assert found.count.sum() == pytest.approx(1)
        assert mean(found) == pytest.approx(20)

    def test_a_large_run_outweighs_all_before_it(self, history: History) -> None:
        record(history, [100] * 20_000)
        record(history, [10] * 20_000, now=DAY)
        assert mean(recall(history, KIND, now=DAY)) < 15

    def test_a_try_with_a_few_requests_outweighs_nothing(self, history: History) -> None:
        record(history, [100] * 20_000)
        for _ in range(5):
            record(history, [10] * 3)
        assert mean(recall(history, KIND)) > 99

    def test_a_clock_set_back_makes_nothing_heavier(self, history: History) -> None:
        record(history, [10, 30], now=100 * DAY)
        assert recall(history, KIND, now=0).count.sum() == 2


class TestTrouble:
    def test_two_processes_record_at_once_and_none_is_lost(self, history: History) -> None:
        code = (
            "import sys; from pathlib import Path; import numpy as np; from blendrun.lengths.history import History\n"
            "for _ in range(20): History.open(Path(sys.argv[1])).record("
            "'m', np.arange(5, dtype=np.uint64), np.ones(5), np.ones(5, bool), now=0)"
        )
        command = [sys.executable, "-c", code, str(history.path)]
        running = [subprocess.Popen(command) for _ in range(2)]
        assert [process.wait() for process in running] == [0, 0]
        count = recall(history, 0, 1, 2, 3, 4, model="m").count.sum(axis=1)
        assert count == pytest.approx(np.full(5, 40), rel=0.02)

    @pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
    def test_a_damaged_file_is_reported_and_left_alone(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "history.sqlite3"
        path.write_bytes(content)
        for call in (recall, lambda history, kind: record(history, [1.0])):
            with pytest.raises(HistoryUnavailableError, match=str(path)):
                call(History.open(path), KIND)
        assert path.read_bytes() == content

    def test_impossible_numbers_are_reported(self, history: History) -> None:
        record(history, [10])
        for octaves in (b"short", np.full((3, 32), np.nan).tobytes(), np.full((3, 32), -1.0).tobytes(), "text"):
            with sqlite3.connect(history.path) as connection:
                connection.execute("update kinds set octaves = ?", (octaves,))
            connection.close()
            with pytest.raises(HistoryUnavailableError):
                recall(history, KIND)

    def test_a_file_of_a_later_version_is_neither_read_nor_written(self, history: History) -> None:
        record(history, [10])
        with sqlite3.connect(history.path) as connection:
            connection.execute("pragma user_version = 9")
        connection.close()
        with pytest.raises(HistoryUnavailableError, match="another version"):
            recall(history, KIND)
        with pytest.raises(HistoryUnavailableError, match="another version"):
            record(history, [10])

    def test_a_file_locked_for_long_is_reported(self, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
        record(history, [10])
        monkeypatch.setattr("blendrun.database._WAIT_SECONDS", 0.05)
        connection = sqlite3.connect(history.path, isolation_level=None)
        connection.execute("begin exclusive")
        with pytest.raises(HistoryUnavailableError, match="locked"):
            record(history, [20])
        with pytest.raises(HistoryUnavailableError, match="locked"):
            recall(history, KIND)
        connection.execute("rollback")
        connection.close()
        assert mean(recall(history, KIND)) == 10

    def test_a_place_that_cannot_hold_a_file_is_reported(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("not a folder")
        with pytest.raises(HistoryUnavailableError, match="BLENDRUN_DATA"):
            record(History.open(tmp_path / "file" / "history.sqlite3"), [1.0])

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write")
    def test_a_read_only_folder_is_reported(self) -> None:
        with pytest.raises(HistoryUnavailableError):
            record(History.open(Path("/proc/self/history.sqlite3")), [1.0])

    def test_a_read_only_file_can_still_be_recalled(self, history: History) -> None:
        record(history, [10])
        history.path.chmod(0o400)
        history.path.parent.chmod(0o500)
        try:
            assert mean(recall(history, KIND)) == 10
        finally:
            history.path.parent.chmod(0o700)

    def test_a_failed_record_leaves_what_was_there(self, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
        record(history, [10])
        monkeypatch.setattr("blendrun.lengths.history._FORGET", "no sql ?")
        with pytest.raises(HistoryUnavailableError):
            record(history, [1000] * 50)
        assert mean(recall(history, KIND)) == 10


def test_the_file_stays_small(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blendrun.lengths.history._KINDS_A_RUN", 10)
    monkeypatch.setattr("blendrun.lengths.history._KINDS_KEPT", 15)
    for run in range(3):
        kinds = np.arange(run * 20, run * 20 + 20, dtype=np.uint64)
        history.record(MODEL, kinds, np.ones(20), np.ones(20, dtype=bool), now=run)
    found = recall(history, *range(60))
    assert len(found) == 15
    assert found.cluster[-10:].tolist() == list(range(40, 50))


class TestDataFolder:
    def test_blendrun_data_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BLENDRUN_DATA", "/data/of/mine")
        assert History.open().path == Path("/data/of/mine/history.sqlite3")

    def test_then_the_desktop_s_data_folder_then_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("BLENDRUN_DATA", raising=False)
        monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
        assert data_folder() == Path("/xdg/blendrun")
        monkeypatch.delenv("XDG_DATA_HOME")
        monkeypatch.setenv("HOME", "/home/somebody")
        assert data_folder() == Path("/home/somebody/.local/share/blendrun")

    def test_without_a_home_there_is_no_history(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BLENDRUN_DATA", "~nobody-by-this-name/data")
        with pytest.raises(HistoryUnavailableError, match="BLENDRUN_DATA"):
            History.open()

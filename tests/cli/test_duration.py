"""Durations as people write them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from blendrun.backends.deadline import parse_deadline, parse_duration
from blendrun.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3h50m", 13800), ("45m", 2700), ("90s", 90), ("90", 90), ("1d12h", 129600), ("02:30:00", 9000), ("5:00", 300)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text, "--deadline") == seconds


@pytest.mark.parametrize("text", ["", "soon", "3h 50", "h", "-5m", "3h50", "1:2:3:4"])
def test_what_is_no_duration_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="is no duration"):
        parse_duration(text, "--deadline")


class TestSlurm:
    def test_the_end_that_slurm_tells(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 600))
        assert 590 < (parse_deadline("slurm") or 0) <= 600

    def test_outside_of_a_job_it_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
        with pytest.raises(UsageError, match="no Slurm job"):
            parse_deadline("slurm")

    def test_a_job_whose_end_cannot_be_asked_for_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
        monkeypatch.setenv("SLURM_JOB_ID", "17")
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(UsageError, match="squeue does not answer"):
            parse_deadline("slurm")

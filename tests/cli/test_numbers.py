"""Numbers that nobody means are refused as what they are, or do what they say; none is a bug."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import REPLAY, blendrun, environment, write_jobs

_REFUSED = {
    "--deadline": ("999999d", "9" * 400, "1e400", "4000d", f"{'9' * 400}:00:00", "99999999-00:00:00", "nan"),
    "--shard": (f"1/{10**20}", f"{10**20}/{10**20}", "1/" + "9" * 5000, "1/100001", "٣/٤"),
    "--drain-timeout": ("1e400", "inf", "nan", "1e300"),
    "--stall-timeout": ("inf", "nan", "1e300"),
    "--limit": (str(10**30), str(2**63)),
    "--max-errors": ("9" * 16, "1e400", "nan", "-1"),
    "--max-restarts": (str(10**30),),
    "--replicas": (str(10**9), str(10**30)),
    "--threads": (str(10**30),),
    "--max-line-bytes": (str(2**32),),
    "--zstd-window": ("9", "32", str(10**30)),
    "--metrics-port": ("65536", str(10**30)),
    "--engine-arg": ("slots=1e400", f"slots={10**30}", "decode_rate=1e-300", "real_time=NaN", "prefill_rate=Infinity"),
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return write_jobs(tmp_path / "jobs.jsonl", 3)


@pytest.mark.parametrize("option", _REFUSED)
def test_what_nobody_means_is_a_usage_error(jobs: Path, out: Path, option: str) -> None:
    for number in _REFUSED[option]:
        done = blendrun("run", "-q", jobs, "-o", out, *REPLAY, option, number)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), f"{number}: {done.stderr}"
        assert len(done.stderr) < 2000
    assert not Path(f"{out}.blendrun").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--deadline", "3650d"),
        ("--drain-timeout", "1e6"),
        ("--stall-timeout", "1e6"),
        ("--limit", str(2**63 - 1)),
        ("--max-errors", "9" * 15),
        ("--shard", "1/100000"),
    ],
    ids=lambda words: words[0],
)
def test_what_is_merely_large_does_what_it_says(jobs: Path, out: Path, words: tuple[str, str]) -> None:
    done = blendrun("run", "-q", jobs, "-o", out, *REPLAY, *words)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("end", ["9" * 5000, "9" * 15, "٣", "-1", "1e9", " "])
def test_slurms_times_are_read_with_care(jobs: Path, out: Path, end: str) -> None:
    done = blendrun(
        "run", "-q", jobs, "-o", out, *REPLAY, "--deadline", "slurm", env=environment(SLURM_JOB_END_TIME=end)
    )
    assert done.returncode == 2
    assert "is no time; give a duration instead" in done.stderr


@pytest.mark.parametrize("count", ["9" * 5000, str(10**20), "-1", "0", "x"])
def test_slurms_arrays_are_read_with_care(jobs: Path, out: Path, count: str) -> None:
    names = {"SLURM_ARRAY_TASK_ID": count, "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": count}
    done = blendrun("run", "-q", jobs, "-o", out, *REPLAY, "--shard", "slurm", env=environment(**names))
    assert done.returncode == 2, done.stderr


_TRACE = ("trace.jsonl", "-m", "llama-3-8b", "--hardware", "h200")
_OTHERS = {
    ("plan", *_TRACE): ("--gpus", "--tp", "--limit"),
    ("bench", "simulate", *_TRACE): ("--gpus",),
    ("bench", "tunnel", *_TRACE): ("--kv-tokens", "--max-running", "--limit"),
    ("bench", "live", "trace.jsonl", "-m", "smollm2-135m"): ("--kv-tokens", "--limit", "--repeat", "--threads"),
    ("calibrate", "-m", "smollm2-135m"): ("--threads",),
    ("synth", "-o", "new.jsonl", "-m", "llama-3-8b", "--hardware", "h200"): ("--gpus", "--requests"),
}


@pytest.mark.parametrize("words", _OTHERS, ids=lambda words: " ".join(words[:2]))
def test_other_commands_refuse_them_too(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "trace.jsonl").write_text('{"prompt_tokens": 10, "output_tokens": 5}\n' * 3)
    for option in _OTHERS[words]:
        done = blendrun(*words, option, str(10**23), cwd=tmp_path)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), f"{option}: {done.stderr}"

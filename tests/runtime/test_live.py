"""Orders compared on the real runtime: the same requests, and what the plan promised of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import blendrun, lines_of

pytestmark = pytest.mark.runtime

GROUPS, EACH = 6, 5
STEPS = Path(__file__).resolve().parents[2] / "scripts" / "bench" / "steps.py"


def job(folder: Path) -> Path:
    """Groups that share a prefix, as far apart as can be."""
    path = folder / "jobs.jsonl"
    heads = [" ".join(f"word{group}{place}" for place in range(40)) for group in range(GROUPS)]
    lines = [
        {
            "custom_id": f"{group}-{number}",
            "url": "/v1/completions",
            "body": {"prompt": f"{heads[group]} {number}", "max_tokens": 3, "ignore_eos": True, "temperature": 0},
        }
        for number in range(EACH)
        for group in range(GROUPS)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_plan_comes_true_and_is_compared(tmp_path: Path) -> None:
    words: list[str | Path] = ["bench", "live", job(tmp_path), "--model", "smollm2-135m", "--device", "cpu"]
    words += ["--threads", "1"]
    # Two prefixes fit the pool.
    words += ["--kv-tokens", "800", "--orders", "given,blended", "--repeat", "2", "--keep", tmp_path / "runs", "--json"]
    done = blendrun(*words, "--plot", tmp_path / "plot.png", process=True)
    assert done.returncode == 0, done.stderr
    assert "did not take" not in done.stderr
    report = json.loads(done.stdout)
    assert report["requests"] == GROUPS * EACH
    given, blended = report["rows"]
    assert len(given["seconds"]) == len(blended["seconds"]) == 2
    # What the plan promised of the cache is what the runtime reports.
    assert blended["hit_rate"] >= 0.95 * blended["predicted_hit_rate"] > 0.5
    assert blended["hit_rate"] > given["hit_rate"]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    records = lines_of(tmp_path / "runs" / "blended-exclusive-1.records.jsonl")
    assert sorted(record["index"] for record in records) == list(range(GROUPS * EACH))
    assert sum(record["cached"] for record in records) == round(blended["hit_rate"] * report["prompt_tokens"])
    steps = lines_of(next((tmp_path / "runs").glob("ours-plan-*.steps.jsonl")))
    # Both repeats are in one log; each admits everything once, in the order that its two sides make of it.
    admitted = [index for step in steps for index in step["admitted"]]
    count = GROUPS * EACH
    assert [sorted(part) for part in (admitted[:count], admitted[count:])] == 2 * [list(range(count))]
    # What the script makes of these files.
    (tmp_path / "runs" / "live.json").write_text(done.stdout)
    kept = subprocess.run([sys.executable, STEPS, tmp_path / "runs"], capture_output=True, text=True, check=True)
    job_name, cached, promised, *_ = [cell.strip() for cell in kept.stdout.splitlines()[-1].split("|")[1:]]
    assert job_name == "runs"
    assert float(cached.rstrip("%")) == pytest.approx(100 * blended["hit_rate"], abs=0.1)
    assert float(promised.rstrip("%")) >= 95

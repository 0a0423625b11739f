"""Every script runs: a small job of each that needs no engine, the help of those that do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.command import REPLAY, blendrun, write_jobs
from tests.needs import needs, workload
from tests.tokens.token_jobs import smollm2_folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
# What each prints at its end, or somewhere.
SMALL = {
    "bench/contrast.py h200-short job.jsonl": "1,080 requests",
    "bench/growth.py --scale 0.01": "| 2,000 | 1 M |",
    "bench/tree.py 2000:1e5": "2,000",
    "bench/plan.py 2000:1e5": "blend",
    "bench/scale.py --requests 2000 --tokens 20": "simulating",
    "bench/simulate.py mix-1 --scale 0.005": "pdmux",
    "bench/short.py mix-1:1000:0": "| mix-1:1000:0 | 1,000 |",
    "bench/modes.py mix-1 --requests 1600 --hardware a100-80g": "mix-1",
    "bench/variants.py mix-1 --scale 0.002 --part 200": "| blended, mixed |",
    "bench/tails.py --seeds 1 --requests 200": "longest first by mean",
    "bench/attention.py --rows 2 --contexts 40 --prefills 9:7 --repeats 1": "| 9 | 7 |",
    "bench/memory.py --lines 2000": "resumed answers equal those of the whole run: True",
    "bench/page.py --requests 500 --out page": "MiB",
    "make_figures.py figures": "",
    "fuzz/servers.py --seconds 2": "rounds of 6 lines",
}
# They start engines, or answer to nobody but a machine: what they call is tested where it lives.
WITH_AN_ENGINE = (
    "bench/endpoints.py",
    "bench/equal.py",
    "bench/feeding.py",
    "bench/harness.py",
    "bench/learned_steps.py",
    "bench/learning.py",
    "bench/live.py",
    "bench/peers.py",
    "bench/predict.py",
    "bench/scored.py",
    "bench/serve.py",
    "bench/tables.py",
    "compat_row.py",
    "differential.py",
    "heads.py",
    "mutants.py",
)
# Run by other tests (tests/cost, tests/docs, tests/faults, tests/runtime/test_live.py, tests/scripts/test_gpu.py), or
# imported by those above; the last makes recordings for tests/learned, from the repository's folder.
ELSEWHERE = {
    "make_cli_reference.py",
    "make_module_list.py",
    "make_examples.py",
    "make_field_table.py",
    "make_schemas.py",
    "faults/soak.py",
    "faults/soak_job.py",
    "faults/chaos.py",
    "faults/chaos_server.py",
    "faults/cut_server.py",
    "faults/system_calls.py",
    "fuzz/json_cases.py",
    "fuzz/lines.py",
    "fuzz/reading.py",
    "bench/cuts.py",
    "bench/pool.py",
    "bench/steps.py",
    "bench/synthetic.py",
    "gpu/measure.py",
    "gpu/model.py",
    "gpu/predicted.py",
    "gpu/pretend.py",
    "gpu/products.py",
    "gpu/read.py",
    "gpu/rounds.py",
    "gpu/stub/blendrun_rounds/__init__.py",
    "gpu/stub/blendrun_rounds/mixed_rows.py",
    "gpu/stub/sgl_kernel/__init__.py",
    "gpu/stub/sgl_kernel/norms.py",
    "bench/record_time_left.py",
}
# Tests of their own below.
HERE = {
    *("bench/shared.py", "bench/extras.py", "bench/joining.py"),
    *("bench/hooks.py", "bench/lengths.py", "bench/partition.py", "fuzz/validator.py", "show_answers.py"),
}


def run(folder: Path, words: str, *more: str | Path) -> str:
    """What a script prints, run in `folder`."""
    name, *arguments = words.split()
    command = [sys.executable, str(SCRIPTS / name), *arguments, *map(str, more)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_none_is_forgotten() -> None:
    there = {str(path.relative_to(SCRIPTS)) for path in SCRIPTS.rglob("*.py")}
    assert there == {words.split()[0] for words in SMALL} | set(WITH_AN_ENGINE) | ELSEWHERE | HERE


@pytest.mark.parametrize("words", SMALL, ids=lambda words: words.split()[0])
def test_a_small_job_of_it(words: str, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    more = ("--workloads", workload("azure-2023.jsonl.gz").parent) if "simulate.py" in words else ()
    assert SMALL[words] in run(tmp_path, words, *more)


@pytest.mark.parametrize("name", WITH_AN_ENGINE)
def test_its_help(name: str, tmp_path: Path) -> None:
    assert "usage: " in run(tmp_path, f"{name} --help")


def test_lengths_of_a_folder_of_workloads(tmp_path: Path) -> None:
    folder = workload("smoke-mix.jsonl").parent
    shown = run(tmp_path, "bench/lengths.py", folder, "--draws", "1", "--prompts", "2000")
    assert "smoke-mix" in shown and "One estimate of 2,000 prompts" in shown


def test_what_drafts_and_a_host_cache_would_bring(tmp_path: Path) -> None:
    workloads = workload("azure-2023.jsonl.gz").parent
    words = "bench/extras.py azure-2023 --requests 100 --hardware a100-80g --workloads"
    assert "| azure-2023 | a100-80g |" in run(tmp_path, words, workloads)


def test_what_shared_reads_would_bring(tmp_path: Path) -> None:
    workloads = workload("squality-long.jsonl.zst").parent
    words = f"bench/shared.py squality-long --hardware a100-80g --tokenizer {smollm2_folder()} --workloads"
    assert "squality-long" in run(tmp_path, words, workloads)


@pytest.mark.runtime
def test_the_cpu_of_hooks(tmp_path: Path) -> None:
    shown = run(tmp_path, "bench/hooks.py --rows 16 --cached 4000 --evict-rows 32")
    assert "| 16 | refused |" in shown and "| 16 | admits 4 |" in shown and "| 4,000 |" in shown


def test_some_rounds_of_chaos(tmp_path: Path) -> None:
    assert "0 lost, 0 doubled, 0 changed" in run(tmp_path, "faults/soak.py --chaos --rounds 3")


def test_parts_of_a_job(tmp_path: Path) -> None:
    job = write_jobs(tmp_path / "jobs.jsonl", 80, max_tokens=8)
    assert "| jobs | 80 |" in run(tmp_path, "bench/partition.py", job, "--tokenizer", smollm2_folder())


def test_two_batches_a_while_apart(tmp_path: Path) -> None:
    words = "bench/joining.py out --stories 40 --tokens 400 --answer 20 --wait 1"
    said = run(tmp_path, words, "--tokenizer", smollm2_folder())
    assert "one after the other" in said
    apart, together = (
        sorted((tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()) for name in ("apart", "together")
    )
    assert apart == together and len(apart) == 160


def test_some_answers_of_a_file(tmp_path: Path) -> None:
    job = write_jobs(tmp_path / "jobs.jsonl", 9)
    assert blendrun("run", job, *REPLAY, "-o", tmp_path / "out.jsonl").returncode == 0
    assert "3 of the 9 answers" in run(tmp_path, "show_answers.py out.jsonl 3")


def test_the_coverage_guided_fuzzer(tmp_path: Path) -> None:
    try:
        import atheris  # noqa: F401
    except ImportError:
        pytest.skip(needs("atheris", ".venv/bin/uv pip install -c constraints.txt -e '.[fuzz]'"))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "line").write_bytes(orjson.dumps({"custom_id": "a", "url": "/v1/completions", "body": {"prompt": "x"}}))
    run(tmp_path, "fuzz/validator.py -runs=500 corpus")

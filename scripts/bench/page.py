"""The report of a large run: how long it takes to make, how big it is, how soon a browser has drawn it.

    python scripts/bench/page.py [--requests 1000000] [--out page]

The plan is a real one, of a made workload; input, journal, records and steps are made up in the form that a run leaves.
Opening needs Chromium and playwright; without them only the first two are told.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import orjson

from blendrun.store import manifest as manifests
from blendrun.store import summary as summaries
from blendrun.store.folder import StateFolder
from blendrun.store.journal import HEADER
from blendrun.store.manifest import Manifest
from blendrun.store.records import RequestRecord
from blendrun.store.summary import Counts, PlanSummary, Summary, Tokens

BLENDRUN = str(Path(sys.executable).with_name("blendrun"))
MODEL, HARDWARE = "llama-3-8b", "a100-80g"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=Path("page"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    state = StateFolder(asked.out / "answers.jsonl")
    state.path.mkdir(exist_ok=True)
    write_plan(state, asked.out / "trace.jsonl", asked.requests)
    write_run(state, asked.requests)
    write_lines(asked.out / "jobs.jsonl", state, asked.requests)
    page = asked.out / "report.html"
    begun = time.monotonic()
    subprocess.run([BLENDRUN, "report", str(state.output), "-o", str(page)], check=True)
    seconds = time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{asked.requests:,} requests: made in {seconds:.1f} s, {page.stat().st_size / 1e6:.2f} MB")
    print(f"most memory of the commands so far: {peak:,.0f} MiB")
    browser = shutil.which("chromium")
    if browser is not None:
        print(f"drawn {opened(page, browser):.2f} s after it was asked for")


def write_plan(state: StateFolder, trace: Path, requests: int) -> None:
    made = [BLENDRUN, "synth", "-m", MODEL, "--hardware", HARDWARE, "--requests", str(requests), "-o", str(trace)]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    plan = [BLENDRUN, "plan", str(trace), "-m", MODEL, "--hardware", HARDWARE, "--json", "-q"]
    with state.plan.open("wb") as file:
        subprocess.run(plan, check=True, stdout=file)


def write_run(state: StateFolder, requests: int) -> None:
    """Requests one behind the other, 200 a second; three engine steps for ten requests."""
    rng = np.random.default_rng(0)
    nodes = orjson.loads(state.plan.read_bytes())["icicle"][0]["end"]
    lengths = np.maximum(rng.lognormal(5, 1, requests), 1).astype(int).tolist()
    manifests.write(
        state.manifest,
        Manifest(
            1, {}, (str(state.output.with_name("jobs.jsonl")),), "fingerprint", None, MODEL, "identity", "sglang", {}
        ),
    )
    summaries.write(state.summary, summary_of(state, requests, sum(lengths)))
    encoder = msgspec.json.Encoder()
    with state.records.open("wb") as file:
        for place in range(requests):
            record = RequestRecord(
                run=1,
                custom_id=f"request {place}",
                row=place,
                index=place,
                side=place % 2,
                subtree=place * nodes // requests,
                planned_output=200,
                planned_hit=100,
                prompt=400,
                cached=100,
                output=lengths[place],
                finish=("length",) if place % 10 == 9 else ("stop",),
                error=None,
                submitted=place / 200,
                ended=place / 200 + lengths[place] / 40,
            )
            file.write(encoder.encode(record) + b"\n")
    step = {
        "prefill_tokens": 2000,
        "decode_rows": 300,
        "hit_tokens": 700,
        "kv_used": 300_000,
        "sent_back": [],
        "admitted": [],
    }
    with state.steps.open("wb") as file:
        for number in range(requests * 3 // 10):
            line = {"step": number, "time": number / 60, "seconds": 1 / 61, "budget": None, "mode": "mixed", **step}
            file.write(orjson.dumps(line) + b"\n")


def summary_of(state: StateFolder, requests: int, output: int) -> Summary:
    """As a run writes it that has answered everything, in no time that anybody planned."""
    planned = next(row for row in orjson.loads(state.plan.read_bytes())["orders"] if row["chosen"])
    return Summary(
        schema_version=1,
        status="completed",
        exit_code=0,
        output=state.output.name,
        errors=None,
        inputs=("jobs.jsonl",),
        model=MODEL,
        engine="sglang",
        platform="gpu",
        order="given",
        counts=Counts(requests, requests, 0),
        tokens=Tokens(400 * requests, 100 * requests, output),
        seconds={"plan": 60.0, "load": 90.0, "run": requests / 200, "wall": requests / 200 + 150},
        throughput={},
        finish_reasons={"stop": requests - requests // 10, "length": requests // 10},
        error_codes={},
        versions={},
        notes=(),
        plan=PlanSummary(planned["name"], planned["overlap"], "", planned["predicted_seconds"], planned["hit_tokens"]),
    )


def write_lines(jobs: Path, state: StateFolder, requests: int) -> None:
    """The input and the journal, which the samples are looked for in: about 400 and 600 bytes a line."""
    question = "What does the harbour master write down in the evening, and whom does he tell of it? " * 3
    with jobs.open("wb") as asked, state.journal.open("wb") as told:
        told.write(HEADER)
        for place in range(requests):
            name = f"request {place}"
            body = {"messages": [{"role": "user", "content": f"{question}{place}"}]}
            asked.write(orjson.dumps({"custom_id": name, "url": "/v1/chat/completions", "body": body}) + b"\n")
            answer = {"choices": [{"message": {"content": f"{question}{question}{place}"}}]}
            line = {"id": "batch_req_0", "custom_id": name, "response": {"body": answer}, "error": None}
            told.write(b"00000000 {}\t" + orjson.dumps(line) + b"\n")


def opened(page: Path, browser: str) -> float:
    """Seconds from the call to the last picture."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = running.new_page()
        begun = time.monotonic()
        tab.goto(page.resolve().as_uri())
        tab.wait_for_function("[...document.querySelectorAll('.chart')].every(each => each.querySelector('svg'))")
        seconds = time.monotonic() - begun
        running.close()
    return seconds


if __name__ == "__main__":
    main()

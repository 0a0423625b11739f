"""Pages of made-up runs, with everything on them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import orjson

from blendrun.endpoints.base import Usage
from blendrun.engine.base import Result
from blendrun.report.page.subject import Subject, run_subject
from blendrun.report.schemas.plan import PlanReport
from blendrun.store import manifest as manifests
from blendrun.store import summary as summaries
from blendrun.store.answers import answer_line
from blendrun.store.failures import Failure
from blendrun.store.folder import StateFolder
from blendrun.store.journal import Journal, Record
from blendrun.store.manifest import Manifest
from blendrun.store.summary import Counts, PlanSummary, Summary, Tokens
from tests.report.plan_of_small_job import plan_of_small_job
from tests.report.test_requests import record
from tests.report.test_series import step

# What a custom_id or a message may hold: it must stay text.
NASTY = "</script><img src=http://x.test/ onerror=alert(1)>&\u2028{{ 7*7 }}"


def small_plan() -> PlanReport:
    return plan_of_small_job(lambda number: f"{NASTY} {number}" if number == 0 else f"request {number}")


def write_run(folder: Path, name: str = "answers.jsonl", *, requests: int = 60) -> Path:
    """The files of a run that has ended. Returns its output's path."""
    state = StateFolder(folder / name)
    state.path.mkdir(parents=True)
    plan = small_plan()
    state.plan.write_bytes(msgspec.json.encode(plan))
    nodes = [node.node for node in plan.icicle if node.node > 0]
    with state.records.open("wb") as file:
        for place in range(requests):
            made = record(
                place,
                place * 0.1,
                place * 0.1 + 3,
                custom_id=f"{NASTY} {place}",
                subtree=nodes[place % len(nodes)],
                output=5 + place % 40,
                error="engine_error" if place == 7 else None,
                finish=("length",) if place % 10 == 9 else ("stop",),
            )
            file.write(msgspec.json.encode(made) + b"\n")
    _write_lines(folder / "jobs.jsonl", state, requests)
    with state.steps.open("wb") as file:
        for number in range(requests * 3):
            prefill = 40 if number % 7 == 0 else 0
            made_step = step(number, 20 + number * 0.05, prefill_tokens=prefill, seconds=0.05, kv_used=200 + number)
            file.write(orjson.dumps(made_step) + b"\n")
    manifests.write(
        state.manifest,
        Manifest(1, {"blendrun": "0.1.0"}, (str(folder / "jobs.jsonl"),), "f", None, "m", "i", "sglang", {}),
    )
    summaries.write(state.summary, made_summary(requests, plan))
    return state.output


def _write_lines(jobs: Path, state: StateFolder, requests: int) -> None:
    """Input and journal, with what nobody would like to see run."""
    with jobs.open("wb") as file, Journal(state.journal) as journal:
        for place in range(requests):
            name = f"{NASTY} {place}"
            body = {"messages": [{"role": "user", "content": f"Question {place}: {NASTY}"}]}
            file.write(orjson.dumps({"custom_id": name, "url": "/v1/chat/completions", "body": body}) + b"\n")
            answer = orjson.dumps({"choices": [{"message": {"content": f"Answer {place}: {NASTY}"}}]})
            failed = Result(place, 500, b"", error_code="engine_error", error_message=f"{NASTY} happened")
            result = failed if place == 7 else Result(place, 200, answer)
            key = place.to_bytes(16, "big")
            line = answer_line(key, name, result)
            journal.append(Record(key, place != 7, Usage(), ("stop",), result.error_code, line))


def made_summary(requests: int, plan: PlanReport) -> Summary:
    return Summary(
        schema_version=1,
        status="completed",
        exit_code=3,
        output="answers.jsonl",
        errors="answers.jsonl.errors.jsonl",
        inputs=("jobs.jsonl",),
        model="m",
        engine="sglang",
        platform="cpu",
        order="blended",
        counts=Counts(requests, requests - 1, 1),
        tokens=Tokens(20 * requests, 5 * requests, 20 * requests),
        seconds={"load": 20.0, "run": 9.0, "wall": 31.0},
        throughput={"output_throughput": 100.0},
        finish_reasons={"stop": requests - 1 - requests // 10, "length": requests // 10},
        error_codes={"engine_error": 1},
        versions={"sglang": "0.5.23"},
        notes=(f"a note {NASTY}",),
        plan=PlanSummary("blended", "exclusive", plan.why, 8.0, 400),
        failures=(Failure("engine_error", NASTY, 1, "jobs.jsonl", 8),),
    )


def subject(folder: Path, name: str = "answers.jsonl") -> Subject:
    return run_subject(write_run(folder, name), name)

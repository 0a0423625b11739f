"""`blendrun plan` from outside."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from blendrun.backends.same import apart_of, cache_settings
from blendrun.backends.sglang import engine_settings
from blendrun.endpoints.base import Usage
from blendrun.engine.base import Result
from blendrun.engine.settings import answer_settings, runtime_versions
from blendrun.events import ignore
from blendrun.jobs.index import index_jobs
from blendrun.jobs.same import Sameness
from blendrun.jobs.source import open_sources
from blendrun.models.resolve import resolve_model
from blendrun.report.schemas.plan import PlanReport
from blendrun.runner.kept_answers import KeptAnswers
from blendrun.store.manifest import salt_of
from blendrun.tree import small
from blendrun.tree.interpreted import call
from tests.command import blendrun, write_jobs
from tests.needs import workload

# README of the workloads: what an infinite prefix cache saves, in per cent.
SAVED = {
    "xquad-qa-5lang.jsonl.gz": 74.8,
    "xquad-translate.jsonl.gz": 84.9,
    "mmlu-5shot.jsonl.zst": 86.2,
    "instruct-mix.jsonl.gz": 35.9,
    "squality-long.jsonl.zst": 79.8,
    "mooncake-conversation.jsonl.gz": 37.4,
}
LLAMA = ("--model", "llama-3-8b", "--hardware", "a100-80g")
SMALL = ("--model", "smollm2-135m", "--hardware", "cpu")


def write_trace(path: Path, rows: int = 12, **fields: Any) -> Path:
    lines = [
        {"id": f"r{row}", "prompt_tokens": 600, "output_tokens": 5 + 40 * (row % 3), "block_size": 512} | fields
        for row in range(rows)
    ]
    for row, line in enumerate(lines):
        line["hash_ids"] = [row % 4, 100 + row]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def planned(*words: str | Path) -> dict[str, Any]:
    done = blendrun("plan", *words, "--json", "-q")
    assert done.returncode == 0, done.stderr
    msgspec.json.decode(done.stdout, type=PlanReport)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_what_is_only_read_writes_no_token(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 7, "ignore_eos": True}
    bodies = {
        "/v1/chat/completions": chat,
        "/v1/score": {"query": "Is it so?", "items": [" yes", " no"], "label_token_ids": [1, 2]},
        "/v1/embeddings": {"input": "A text."},
    }
    lines = [{"custom_id": url, "url": url, "body": body} for url, body in bodies.items()]
    path = tmp_path / "jobs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert planned(path, *SMALL)["output_tokens"] == 7


def test_a_trace_is_planned_without_any_file_of_the_model(tmp_path: Path) -> None:
    report = planned(write_trace(tmp_path / "trace.jsonl"), *LLAMA)
    assert (report["kind"], report["requests"], report["prompt_tokens"]) == ("trace", 12, 7200)
    # Four first blocks of 512 tokens, each shared by three.
    assert report["shared_tokens"] == 8 * 512
    assert report["lengths"] == {"known": 12}
    rows = {(order["name"], order["overlap"]) for order in report["orders"]}
    assert rows == {
        (name, overlap)
        for name in ("given", "shuffled", "sorted", "lof", "blended")
        for overlap in ("exclusive", "mixed")
    }
    chosen = next(order for order in report["orders"] if order["chosen"])
    assert chosen["predicted_seconds"] <= 1.006 * min(order["predicted_seconds"] for order in report["orders"])
    assert all(order["predicted_seconds"] >= order["bound_seconds"] > 0 for order in report["orders"])
    assert sum(order["chosen"] for order in report["orders"]) == 1
    assert sum(report["histogram"]["requests"]) == 12


def test_the_order_file_holds_every_name_once_and_is_the_same_again(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace.jsonl")
    for name in ("one.txt", "two.txt"):
        assert blendrun("plan", trace, *LLAMA, "--order-out", tmp_path / name).returncode == 0
    names = (tmp_path / "one.txt").read_text().splitlines()
    assert sorted(names) == sorted(f"r{row}" for row in range(12))
    assert (tmp_path / "one.txt").read_bytes() == (tmp_path / "two.txt").read_bytes()
    given = tmp_path / "given.txt"
    assert blendrun("plan", trace, *LLAMA, "--orders", "given", "--order-out", given).returncode == 0
    assert given.read_text().splitlines() == [f"r{row}" for row in range(12)]


def test_a_saved_plan_is_arrays_without_pickle(tmp_path: Path) -> None:
    trace, saved = write_trace(tmp_path / "trace.jsonl"), tmp_path / "plan.npz"
    assert blendrun("plan", trace, *LLAMA, "--save", saved).returncode == 0
    with np.load(saved, allow_pickle=False) as arrays:
        assert sorted(arrays["row"].tolist()) == list(range(12))
        assert json.loads(arrays["report"].tobytes())["requests"] == 12


def test_a_text_job_is_shown_with_its_tree_and_first_prompt(tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 30)
    done = blendrun("plan", jobs, *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["job", "machine", "order", "time", "next"]
    assert "question 0" not in done.stdout
    assert "phase=tokenise" in done.stderr
    more = blendrun("plan", jobs, *SMALL, "-v", "--show-prompt", "--price", "2.5", cwd=tmp_path).stdout
    for words in (
        "--price 2.5",
        "30 of 30 lines",
        "heaviest shared prefixes",
        "x 30 requests",
        "question 0",
        "blended",
    ):
        assert words in more
    assert not [line for line in more.splitlines() if line != line.rstrip()]


def test_bad_lines_and_long_prompts_are_warnings(tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 3)
    long: dict[str, Any] = {"custom_id": "long", "url": "/v1/chat/completions"}
    long |= {"body": {"messages": [{"role": "user", "content": "word " * 9000}]}}
    with jobs.open("a", encoding="utf-8") as file:
        file.write("not json\n" + json.dumps(long) + "\n")
    report = planned(jobs, *SMALL)
    assert (report["lines"], report["refused"], report["left_out"], report["requests"]) == (5, 1, 1, 3)
    found = [(each["severity"], each["code"], each["count"], each["first"]) for each in report["findings"]]
    assert found[:2] == [
        ("fails", "no_request", 1, f"{jobs}, line 4"),
        ("fails", "over_context", 1, f"{jobs}, line 5"),
    ]
    assert report["warnings"] == [each["message"] for each in report["findings"]]
    strict = blendrun("plan", jobs, *SMALL, "--strict", "-q")
    assert strict.returncode == 65
    assert "2 lines of 5 will fail" in strict.stderr
    assert strict.stdout.splitlines()[0] == "2 lines of 5 will fail"
    assert "8,192 tokens" in strict.stdout


def test_what_the_model_will_not_see_and_another_models_tokens_are_warnings(tmp_path: Path) -> None:
    jobs, body = tmp_path / "jobs.jsonl", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 400}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    lines = [{"custom_id": f"{row}", "url": "/v1/chat/completions", "body": dict(body)} for row in range(3)]
    lines[2]["body"]["tools"] = [tool]  # type: ignore[index]
    lines.append(dict(lines[0]))
    jobs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tokenizer = resolve_model("smollm2-135m", platform="cpu", weights=False, light=True).path
    report = planned(jobs, *LLAMA, "--tokenizer", tokenizer)
    found = {each["code"]: each["message"] for each in report["findings"]}
    assert list(found) == ["duplicate_id", "tools_not_shown", "other_tokenizer"]
    assert "49,152 tokens and the model 128,256" in found["other_tokenizer"]
    assert "llama-3-8b shows no tools" in found["tools_not_shown"]


def test_a_plan_for_a_cpu_chooses_what_a_run_there_would(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace.jsonl", rows=40)
    report = planned(trace, *SMALL)
    eligible = {(row["name"], row["overlap"]) for row in report["orders"] if row["eligible"]}
    assert eligible == {(name, "exclusive") for name in ("given", "sorted", "lof", "blended")}
    asked = planned(trace, *SMALL, "--overlap", "mixed", "--orders", "shuffled")
    assert [(row["name"], row["overlap"], row["chosen"]) for row in asked["orders"]] == [("shuffled", "mixed", True)]


def test_one_line_is_a_job(tmp_path: Path) -> None:
    assert planned(write_jobs(tmp_path / "jobs.jsonl", 1), *SMALL)["requests"] == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("jobs.jsonl",), 2, "which model? Give --model"),
        (("jobs.jsonl", "--model", "llama-3-9b", "--hardware", "cpu"), 2, "did you mean llama-3-8b"),
        (("jobs.jsonl", "--model", "smollm2-135m", "--hardware", "h1000"), 2, "did you mean"),
        (("missing.jsonl", *SMALL), 66, "missing.jsonl"),
        (("empty.jsonl", *SMALL), 65, "holds no request"),
        (("bad.jsonl", *SMALL), 65, "holds no request that can run"),
        (("long.jsonl", *SMALL), 65, "over the context of smollm2-135m"),
        (("jobs.jsonl", *SMALL, "--tokenizer", "nowhere"), 66, "nowhere"),
        (("jobs.jsonl", "--model", "llama-3-8b", "--hardware", "cpu"), 66, "--tokenizer PATH"),
        (("trace.jsonl", "--model", "llama-3.3-70b", "--hardware", "l4"), 2, "are missing"),
        (("trace.jsonl", *LLAMA, "--order-out", "no/such/folder/file"), 73, "--order-out"),
        (("trace.jsonl", *LLAMA, "--orders", "best"), 2, "known are given, shuffled"),
        (("trace.jsonl", *LLAMA, "--gpus", "two"), 2, "--gpus takes numbers"),
        (("trace.jsonl", *LLAMA, "--price", "dear"), 2, "--price takes"),
        (("huge.jsonl", *LLAMA), 2, "cannot run there"),
    ],
)
def test_what_cannot_be_planned_is_said_in_one_sentence(
    words: tuple[str, ...], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jobs(tmp_path / "jobs.jsonl", 2)
    write_trace(tmp_path / "trace.jsonl")
    (tmp_path / "huge.jsonl").write_text('{"prompt_tokens": 900000, "output_tokens": 5}\n')
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "bad.jsonl").write_text('{"custom_id": "a"}\n')
    long = {"custom_id": "a", "url": "/v1/completions", "body": {"prompt": "word " * 9000}}
    (tmp_path / "long.jsonl").write_text(json.dumps(long) + "\n")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = blendrun("plan", *words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("blendrun: ") or "Error" in last
    assert message in last
    assert "Traceback" not in done.stderr


def test_planning_a_few_lines_loads_neither_torch_nor_sglang_nor_a_compiler(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace.jsonl")
    program = (
        "import sys\nfrom blendrun.cli.app import app\n"
        f"try: app(['plan', {str(trace)!r}, '--model', 'llama-3-8b', '--hardware', 'l40s', '-q'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'sglang', 'transformers', 'numba', 'llvmlite'}\n"
        "print({name.partition('.')[0] for name in sys.modules} & heavy, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip().splitlines()[-1] == "set()"


@pytest.mark.parametrize("what_if", [(), ("--drafts", "4:0.6", "--host-memory", "64", "--overlap", "exclusive")])
def test_a_few_lines_have_the_same_plan_by_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what_if: tuple[str, ...]
) -> None:
    trace = write_trace(tmp_path / "trace.jsonl")
    compiled = planned(trace, *LLAMA, *what_if)
    monkeypatch.setattr(small, "kernels_loaded", lambda: False)
    calls: list[object] = []

    def counted(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        calls.append(function)
        return call(function, arguments)

    monkeypatch.setattr("blendrun.tree.compiled.call", counted)
    slow = planned(trace, *LLAMA, *what_if)
    assert len(calls) > 20
    _assert_alike(slow, compiled)


def _assert_alike(one: Any, other: Any) -> None:
    """But for rounding: sums are taken in another order."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            _assert_alike(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for each, its in zip(one, other, strict=True):
            _assert_alike(each, its)
    else:
        assert one == (pytest.approx(other, rel=1e-9) if isinstance(other, float) else other)


def test_which_card_and_how_many_is_one_table(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace.jsonl")
    wanted = ("--hardware", "h100-sxm,l40s", "--gpus", "1,2", "--price", "2", "--price", "l40s=0.5")
    report = planned(trace, "--model", "llama-3-8b", *wanted)
    rows = [(row["hardware"], row["gpus"]) for row in report["machines"]]
    assert rows == [("h100-sxm", 1), ("h100-sxm", 2), ("l40s", 1), ("l40s", 2)]
    for row in report["machines"]:
        price = 0.5 if row["hardware"] == "l40s" else 2
        assert row["cost"] == pytest.approx(price * row["gpus"] * row["predicted_seconds"] / 3600)
    assert report["machines"][1]["predicted_seconds"] < report["machines"][0]["predicted_seconds"]
    assert "2 x l40s" in blendrun("plan", trace, "--model", "llama-3-8b", *wanted).stdout


def test_an_engine_of_several_gpus_is_planned_as_one(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace.jsonl")
    large = planned(trace, "--model", "llama-3.3-70b", "--hardware", "h100-sxm", "--tp", "4")
    assert [large["hardware"][name] for name in ("gpus", "replicas", "gpus_per_replica")] == [4, 1, 4]
    two = planned(trace, "--model", "llama-3-8b", "--hardware", "h100-sxm", "--gpus", "4", "--engine-arg", "tp_size=2")
    assert [two["hardware"][name] for name in ("gpus", "replicas", "gpus_per_replica")] == [4, 2, 2]
    assert planned(trace, *SMALL, "--tp", "3")["hardware"]["gpus"] == 1
    odd = blendrun("plan", trace, *LLAMA, "--tp", "2", "--gpus", "3")
    assert odd.returncode == 2
    assert "do not divide into engines of 2 devices" in odd.stderr


def test_ranks_that_sglang_deals_to_in_turn_are_no_plan(tmp_path: Path) -> None:
    done = blendrun("plan", write_trace(tmp_path / "trace.jsonl"), *LLAMA, "--engine-arg", "dp_size=2")
    assert done.returncode == 2
    assert "use --replicas 2" in done.stderr


def test_a_machine_that_is_too_small_is_a_row_not_an_end(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace.jsonl")
    report = planned(trace, "--model", "llama-3.3-70b", "--hardware", "h100-sxm,h200", "--gpus", "1,4")
    assert [row["why_not"] is None for row in report["machines"]] == [False, True, False, True]
    assert "are missing" in report["machines"][0]["why_not"]


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.slow
def test_planned_sharing_is_what_the_readme_of_the_workloads_says(name: str, tmp_path: Path) -> None:
    tokenizer = resolve_model("smollm2-135m", platform="cpu").path
    model = ("--model", "llama-3.1-8b", "--tokenizer", tokenizer, "--hardware", "a100-80g")
    report = planned(workload(name), *model)
    assert 100 * report["shared_tokens"] / report["prompt_tokens"] == pytest.approx(SAVED[name], abs=0.1)


def test_a_compressed_trace_and_stdin_are_the_same_plan(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace.jsonl")
    packed = tmp_path / "trace.jsonl.gz"
    packed.write_bytes(gzip.compress(trace.read_bytes()))
    piped = blendrun("plan", "-", *LLAMA, "--json", "-q", input=trace.read_text())
    assert json.loads(piped.stdout) == planned(packed, *LLAMA) == planned(trace, *LLAMA)


def test_drafts_and_host_memory_are_what_ifs_with_the_arguments_that_would_turn_them_on(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace.jsonl", rows=12)
    asked = ("--drafts", "4:0.6", "--host-memory", "64", "--engine-arg", "max_running_requests=8")
    report = planned(trace, *LLAMA, *asked, "--overlap", "exclusive")
    tail, always, host = report["what_ifs"]
    assert "4 drafts at 60% acceptance" in tail["setting"]
    assert tail["gain"] > 0.1
    assert tail["engine_args"] is None
    # So few rows decode that every step is the tail.
    assert always["seconds"] == pytest.approx(tail["seconds"])
    assert always["engine_args"]["speculative_algorithm"] == "NGRAM"
    assert always["engine_args"]["max_running_requests"] == 8
    # The pool holds all of it.
    assert (host["gain"], host["why_not"]) == (0.0, "it does not pay")
    assert planned(trace, *LLAMA)["what_ifs"] == []
    shown = blendrun("plan", trace, *LLAMA, *asked, "--overlap", "exclusive", "-q").stdout
    assert "--engine-arg speculative_algorithm=NGRAM" in " ".join(shown.split())


@pytest.mark.parametrize("value", ["four", "4:1.5", "0:0.5"])
def test_drafts_that_are_none_are_refused(tmp_path: Path, value: str) -> None:
    done = blendrun("plan", write_trace(tmp_path / "trace.jsonl"), *LLAMA, "--drafts", value)
    assert done.returncode == 2
    assert "--drafts takes COUNT:ACCEPTANCE" in done.stderr


def test_an_engine_that_reads_shared_prefixes_once_is_planned_so(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace.jsonl")
    cascade = planned(trace, *LLAMA, "--engine-arg", "attention_backend=blendrun_cascade")
    assert cascade["hardware"]["shared_reads"] == 256
    plain = planned(trace, *LLAMA)
    assert plain["hardware"]["shared_reads"] is None
    assert cascade["density"] > plain["density"]


def test_copies_and_kept_answers_are_told_and_not_planned(tmp_path: Path) -> None:
    texts = [f"question {row if row % 5 > 1 else row - row % 5 + 2}" for row in range(50)]
    bodies = [{"messages": [{"role": "user", "content": text}], "temperature": 0} for text in texts]
    lines = [{"custom_id": f"id {row}", "url": "/v1/chat/completions", "body": body} for row, body in enumerate(bodies)]
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = planned(jobs, *SMALL)
    assert (report["requests"], report["lines"], report["copies"], report["cached"]) == (30, 50, 20, None)
    assert planned(jobs, *SMALL, "--dedupe", "off")["requests"] == 50
    _keep(tmp_path / "cache", jobs, 12)
    report = planned(jobs, *SMALL, "--cache", tmp_path / "cache")
    assert (report["requests"], report["copies"], report["cached"]) == (18, 20, 12)
    shown = blendrun("plan", jobs, *SMALL, "--cache", tmp_path / "cache", "-q").stdout
    assert "18 of 50 lines (20 ask what another line asks, 12 have an answer already);" in " ".join(shown.split())
    _keep(tmp_path / "cache", jobs, 30)
    nothing = blendrun("plan", jobs, *SMALL, "--cache", tmp_path / "cache")
    assert nothing.returncode == 0
    assert nothing.stdout.startswith("all 30 distinct requests of 50 lines have an answer in ")
    assert nothing.stdout.endswith("cache; a run asks no engine\n")
    shown = blendrun("plan", jobs, *SMALL, "--cache", tmp_path / "cache", "--json").stdout
    assert json.loads(shown) == {"requests": 0, "lines": 50, "cached": 30}


def _keep(folder: Path, jobs: Path, count: int) -> None:
    """As a run on this machine's processor would have: answers to the first ones of a job."""
    model = resolve_model("smollm2-135m", platform="cpu", weights=False)
    arguments = engine_settings(model, "cpu", 1, {}).server_args
    decides = answer_settings(arguments) | {"platform": "cpu"}
    found = cache_settings(folder, "10M", runtime_versions(), apart_of(model.path, arguments))
    assert found is not None
    with index_jobs(open_sources([jobs], folder), same=Sameness(keeps=True)) as job:
        kept = KeptAnswers(found, job, salt_of(model.identity, "sglang", decides), ignore)
        for row in job.distinct[:count].tolist():
            kept.keep(Result(row, 200, b"{}", Usage(), ("stop",)))
        kept.close()

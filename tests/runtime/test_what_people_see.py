"""What people see of real runs: log lines, live view, files against their schemas, the page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from blendrun.report.page.page import page_html
from blendrun.report.page.subject import run_subject
from tests.command import blendrun, lines_of
from tests.runtime.feature_run import FeatureRun
from tests.terminal import on_terminal

pytestmark = pytest.mark.runtime
SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
GOLDEN = Path(__file__).with_name("golden")


def state_of(run: FeatureRun) -> Path:
    return run.output.with_name(f"{run.output.name}.blendrun")


def schema(name: str) -> Any:
    return json.loads((SCHEMAS / name).read_bytes())


def compare(name: str, shown: str, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--write-golden"):
        (GOLDEN / name).write_text(shown, encoding="utf-8")
    assert shown == (GOLDEN / name).read_text(encoding="utf-8")


def masked(text: str) -> str:
    """Numbers, times, folders and what the plan chooses vary."""
    text = re.sub(r"order \w+", "order NAME", text)
    # Said where an engine of the kind came up before.
    text = re.sub(r" \(usually \d+ s here\)", "", text)
    text = re.sub(r"^blendrun \S+ t=", "blendrun CLOCK t=", text)
    text = re.sub(r"/\S*/", "DIR/", text)
    return re.sub(r"\d+(?:[.,]\d+)*", "N", text)


def test_the_phases_of_a_run_in_a_log(feature_run: FeatureRun, request: pytest.FixtureRequest) -> None:
    begin = r"blendrun \S+ t=\S+ phase=\w+ detail="
    lines = [line for line in feature_run.stderr.splitlines() if re.match(begin, line)]
    # The small model is converted and loops are compiled once on a machine.
    kept = [line for line in lines if not re.search(r"phase=(model|compile) ", line)]
    compare("phases.txt", "".join(f"{masked(line)}\n" for line in kept), request)
    assert "\r" not in feature_run.stderr
    assert "\x1b" not in feature_run.stderr


def test_lines_of_figures_say_all_that_there_is(feature_run: FeatureRun) -> None:
    figures = [line for line in feature_run.stderr.splitlines() if re.search(r"phase=run done=\d+ total=", line)]
    pattern = (
        r"failed=\d+ in_flight=\d+ prompt_tokens=\d+ cached_tokens=\d+ output_tokens=\d+ "
        r"prefill_per_s=\d+ decode_per_s=\d+ kv_used=[01]\.\d+ left_s=\d+-\d+$"
    )
    assert any(re.search(pattern, line) for line in figures), figures


@pytest.mark.parametrize("name", ["summary.json", "status.json", "plan.json"])
def test_state_files_keep_their_schemas(feature_run: FeatureRun, name: str) -> None:
    jsonschema.validate(json.loads((state_of(feature_run) / name).read_bytes()), schema(name))


def test_records_keep_theirs_and_say_where_a_request_stood(feature_run: FeatureRun) -> None:
    records = lines_of(state_of(feature_run) / "records.jsonl")
    for record in records:
        jsonschema.validate(record, schema("record.json"))
    plan = json.loads((state_of(feature_run) / "plan.json").read_bytes())
    nodes = [node["end"] for node in plan["icicle"] if node["level"] == 0]
    planned = [record for record in records if record["planned_output"] > 0]
    assert planned
    assert all(0 <= record["subtree"] < nodes[0] for record in planned)


def test_the_page_of_a_run_tells_what_it_did(feature_run: FeatureRun) -> None:
    subject = run_subject(feature_run.output, "features")
    assert subject.series is not None and subject.steps is not None and subject.requests is not None
    steps = lines_of(state_of(feature_run) / "steps.jsonl")
    assert subject.steps.steps == len(steps)
    width = subject.series.seconds / len(subject.series.prefill)
    assert sum(subject.series.prefill) * width == pytest.approx(sum(step["prefill_tokens"] for step in steps), rel=0.01)
    assert subject.requests.count == len(lines_of(state_of(feature_run) / "records.jsonl"))
    assert "What failed" in page_html([subject])


def test_status_of_a_finished_run(feature_run: FeatureRun, request: pytest.FixtureRequest) -> None:
    shown = re.sub(r"^took .+", "took TIME", blendrun("status", feature_run.output).stdout, flags=re.MULTILINE)
    compare("status.txt", masked(shown).replace("N s ago", "N ago").replace("N min N ago", "N ago"), request)


def test_the_live_view_of_a_real_run(tmp_path: Path, tiny_model: Path) -> None:
    job = tmp_path / "job.jsonl"
    messages = [{"role": "user", "content": "Tell a story about a river and a mill."}]
    job.write_bytes(
        b"".join(
            json.dumps(
                {
                    "custom_id": f"story {number}",
                    "url": "/v1/chat/completions",
                    "body": {"messages": messages, "max_tokens": 800, "ignore_eos": True},
                }
            ).encode()
            + b"\n"
            for number in range(8)
        )
    )
    command = ("run", job, "-m", tiny_model, "--device", "cpu", "--threads", "1", "-o", tmp_path / "out.jsonl")
    code, shown = on_terminal(*command, height=30)
    assert code == 0, shown
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    for row in (
        r"load \d+ s",
        r"requests +\d of 8 done, 0 failed, (\d cut short, )?\d in flight, \d left",
        r"time left +(about )?\d+ s",
        r"tokens/s +[\d,]+ prefill, [\d,]+ decode",
        r"KV pool +([█░]{20,40} )?\d+ % of [\d,]+ tokens",
        r"time goes to +[█░]{20,40} \d+ % prefill \(compute\), \d+ % decode \(memory\)",
        r"last minute +[▁▂▃▄▅▆▇█]+ prefill",
    ):
        assert re.search(row, text), row

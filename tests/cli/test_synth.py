"""`blendrun synth` from outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.command import blendrun, lines_of

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
ON = ("--model", "llama-3-8b", "--hardware", "a100-80g")
FEW = ("--requests", "2000")
CARD = """
title: Mine
kind: gpu
memory: {value: 8.6e+10, source: here, origin: measured}
peak_flops: {value: 2.0e+14, source: here, origin: datasheet}
peak_bandwidth: {value: 2.0e+12, source: here, origin: datasheet}
achieved_flops: {value: 1.0e+14, source: here, origin: measured}
achieved_bandwidth: {value: 1.5e+12, source: here, origin: measured}
"""


def made(path: Path, *words: str | Path) -> dict[str, Any]:
    done = blendrun("synth", "-o", path, *ON, *words, "--json", "-q")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(report, json.loads((SCHEMAS / "synth.json").read_text(encoding="utf-8")))
    return report


def test_a_file_has_what_was_asked_for_and_a_plan_of_it_says_the_same(tmp_path: Path) -> None:
    mix = tmp_path / "mix.jsonl.zst"
    report = made(mix, *FEW)
    assert report["rho"] == pytest.approx(1.4, rel=0.01)
    assert report["sharing"] == pytest.approx(0.35, abs=0.005)
    assert [kind["name"] for kind in report["kinds"]] == ["burstgpt", "mmlu", "openvid"]
    planned = blendrun("plan", mix, *ON, "--json", "-q")
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert (plan["kind"], plan["lengths"]) == ("trace", {"known": 2000})
    for name in ("requests", "prompt_tokens", "shared_tokens"):
        assert plan[name] == report[name], name
    assert plan["density"] == pytest.approx(report["density"], rel=1e-9)


def test_the_same_seed_is_the_same_file_and_another_is_not(tmp_path: Path) -> None:
    for name, seed in (("one", "5"), ("two", "5"), ("other", "6")):
        made(tmp_path / f"{name}.jsonl", *FEW, "--seed", seed)
    one = (tmp_path / "one.jsonl").read_bytes()
    assert one == (tmp_path / "two.jsonl").read_bytes()
    assert one != (tmp_path / "other.jsonl").read_bytes()
    first = lines_of(tmp_path / "one.jsonl")[0]
    assert set(first) == {"id", "service", "prompt_tokens", "output_tokens", "block_size", "hash_ids"}
    assert len(first["hash_ids"]) == -(-first["prompt_tokens"] // first["block_size"])


def test_people_are_told_what_was_written(tmp_path: Path) -> None:
    done = blendrun("synth", "-o", tmp_path / "mix.jsonl", *ON, *FEW)
    assert done.returncode == 0, done.stderr
    for words in ("burstgpt", "mmlu", "openvid", "asked 1.4", "asked 0.35", "2,000 requests in", "mix.jsonl"):
        assert words in done.stdout
    quiet = blendrun("synth", "-o", tmp_path / "mix.jsonl", *ON, *FEW, "-q")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (ON[2:], 2, "which model? Give --model"),
        (("--model", "llama-3-9b"), 2, "did you mean llama-3-8b"),
        ((*ON, "--hardware", "a100"), 2, "did you mean a100-"),
        ((*ON, "--compute", "chatgpt"), 2, "chatgpt: known are"),
        ((*ON, "--rho", "-1"), 2, "--rho -1"),
        ((*ON, "--rho", "0.05"), 2, "--rho 0.05 is out of reach"),
        ((*ON, "--sharing", "1"), 2, "--sharing 1: it is a share"),
        ((*ON, "--sharing", "0.9"), 2, "--sharing 0.9 is out of reach"),
        ((*ON, "--requests", "100"), 2, "too few to meet it; ask for "),
        ((*ON, "--gpus", "0"), 2, "0 GPUs cannot run a job"),
        ((*ON, "-o", "no/such/mix.jsonl"), 73, "give another file with -o"),
        (("--model", "llama-3-8b", "--hardware", "still.yaml"), 2, "`peak_bandwidth.value` must be a positive number"),
        (("--model", "llama-3-8b", "--hardware", "lame.yaml"), 2, "`achieved_bandwidth`"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_sentence(
    words: tuple[str, ...], code: int, message: str, tmp_path: Path
) -> None:
    (tmp_path / "still.yaml").write_text(CARD.replace("2.0e+12", "0"), encoding="utf-8")
    (tmp_path / "lame.yaml").write_text(CARD.replace("achieved_bandwidth", "#"), encoding="utf-8")
    done = blendrun("synth", "-o", "mix.jsonl", *FEW, *words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert list(tmp_path.glob("*.jsonl*")) == []

"""`blendrun bench simulate` from outside."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from tests.command import blendrun, write_jobs
from tests.tokens.token_jobs import word_tokenizer

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
ON = ("--model", "llama-3-8b", "--hardware", "a100-80g")
FEW = ("--requests", "2000")
ORDERS = ["given", "shuffled", "sorted", "lof", "blended"]
CARD = """
title: Mine
kind: gpu
memory: {value: 8.6e+10, source: here, origin: measured}
peak_flops: {value: 2.0e+14, source: here, origin: datasheet}
peak_bandwidth: {value: 2.0e+12, source: here, origin: datasheet}
achieved_flops: {value: 1.0e+14, source: here, origin: measured}
achieved_bandwidth: {value: 1.5e+12, source: here, origin: measured}
"""


def simulated(*words: str | Path, cwd: Path | None = None) -> dict[str, Any]:
    done = blendrun("bench", "simulate", *words, "--json", "-q", cwd=cwd)
    assert done.returncode == 0, done.stderr
    # Long videos are over the context of the model, and planned as they are: that is said, quiet or not.
    assert all("warning=" in text for text in done.stderr.splitlines())
    report: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(report, json.loads((SCHEMAS / "bench-simulate.json").read_text(encoding="utf-8")))
    return report


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def test_a_grid_has_a_cell_for_each_density_sharing_and_mode(tmp_path: Path) -> None:
    grid = ("--rho", "0.9:1.4:0.5", "--sharing", "0.05,0.35")
    report = simulated(*ON, *FEW, *grid, "--plot", tmp_path / "grid.png")
    cells = report["cells"]
    assert [(cell["sharing"], cell["rho"], cell["overlap"]) for cell in cells] == [
        (sharing, rho, overlap)
        for sharing in (0.05, 0.35)
        for rho in (0.9, 1.4)
        for overlap in ("exclusive", "mixed", "pdmux")
    ]
    assert report["refused"] == []
    for cell in cells:
        assert list(cell["seconds"]) == ORDERS
        assert cell["achieved_rho"] == pytest.approx(cell["rho"], rel=0.02)
        assert cell["achieved_sharing"] == pytest.approx(cell["sharing"], abs=0.01)
        assert sum(cell["kinds"].values()) == cell["requests"] == 2000
        assert 0 < cell["bound_seconds"] <= cell["practical_seconds"]
        assert min(cell["seconds"].values()) > cell["bound_seconds"]
    # What can overlap more is no slower.
    for order in ORDERS:
        exclusive, _, pdmux = (cell["seconds"][order] for cell in cells[:3])
        assert pdmux <= exclusive * 1.001
    width, height = png_size(tmp_path / "grid.png")
    assert width > 600 and height > 400


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    one, two, other = (simulated(*ON, *FEW, "--overlap", "pdmux", "--seed", seed) for seed in ("1", "1", "2"))
    assert one == two
    assert one["cells"][0]["seconds"] != other["cells"][0]["seconds"]


def test_a_file_of_synth_is_the_cell_it_was_made_for(tmp_path: Path) -> None:
    mix = tmp_path / "mix.jsonl.gz"
    assert blendrun("synth", "-o", mix, *ON, *FEW, "-q").returncode == 0
    (cell,) = simulated(*ON, *FEW, "--overlap", "pdmux")["cells"]
    (read,) = simulated(mix, *ON, "--overlap", "pdmux", "--plot", tmp_path / "bars.png")["cells"]
    assert read["seconds"] == pytest.approx(cell["seconds"])
    for name in ("rho", "sharing"):
        assert read[name] == read[f"achieved_{name}"] == pytest.approx(cell[f"achieved_{name}"])
    assert read["kinds"] == {}
    width, height = png_size(tmp_path / "bars.png")
    assert width > 600 and height > 400


def test_people_get_a_table_and_a_drawing_whose_text_is_text(tmp_path: Path) -> None:
    words = (*ON, *FEW, "--orders", "sorted,blended", "--overlap", "mixed,pdmux", "--plot", tmp_path / "one.svg")
    done = blendrun("bench", "simulate", *words, "-q")
    assert done.returncode == 0, done.stderr
    for text in ("burstgpt + openvid + mmlu", "llama-3-8b on a100-80g", "pdmux", "blended/sorted", "at least"):
        assert text in done.stdout
    assert "given" not in done.stdout
    drawn = ElementTree.parse(tmp_path / "one.svg").getroot()
    texts = [element.text for element in drawn.iter() if element.tag.endswith("text")]
    assert "simulated time (seconds)" in texts
    assert {"sorted", "blended"} <= set(texts)


def test_a_cell_out_of_reach_is_left_out_and_told(tmp_path: Path) -> None:
    words = (*ON, *FEW, "--rho", "1.4,90", "--overlap", "pdmux", "--plot", tmp_path / "grid.png")
    report = simulated(*words)
    assert [cell["rho"] for cell in report["cells"]] == [1.4]
    (refused,) = report["refused"]
    assert refused["rho"] == 90
    assert "--rho 90" in refused["why"]
    assert png_size(tmp_path / "grid.png")[0] > 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (ON[2:], 2, "which model? Give --model"),
        ((*ON, "--hardware", "a100"), 2, "did you mean a100-"),
        ((*ON, "--rho", "1:2"), 2, "--rho 1:2: a grid is first:last:step"),
        ((*ON, "--sharing", "x"), 2, "--sharing takes a number or first:last:step, not 'x'"),
        ((*ON, "--sharing", "0.5,1"), 2, "--sharing 1: it is a share"),
        ((*ON, "--rho", "90"), 2, "--rho 90"),
        ((*ON, "--requests", "100"), 2, "too few to meet it"),
        ((*ON, "--memory", "youtube"), 2, "youtube: known are"),
        ((*ON, "--orders", "best"), 2, "--orders best: known are given, shuffled"),
        ((*ON, "--overlap", "perfect"), 2, "--overlap perfect: known are exclusive, mixed, pdmux"),
        ((*ON, "--plot", "grid.gif"), 2, "the name must end in .png or .svg"),
        ((*ON, "--plot", "no/such/grid.png"), 73, "give another file with --plot"),
        ((*ON, "--orders", "sorted", "--rho", "0.9,1.4", "--plot", "g.png"), 2, "name blended and one more"),
        (("trace.jsonl", *ON, "--rho", "1.4"), 2, "--rho is for made workloads"),
        (("missing.jsonl", *ON), 66, "missing.jsonl"),
        (("huge.jsonl", *ON), 2, "and the KV cache holds"),
        (("jobs.jsonl", "--model", "llama-3-8b", "--hardware", "cpu"), 66, "--tokenizer PATH"),
        (("--model", "llama-3.3-70b", "--hardware", "l4"), 2, "are missing"),
        (("--model", "llama-3-8b", "--hardware", "still.yaml"), 2, "`achieved_bandwidth.value` must be a positive"),
        (("--model", "llama-3-8b", "--hardware", "lame.yaml"), 2, "`peak_flops`"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_sentence(
    words: tuple[str, ...], code: int, message: str, tmp_path: Path
) -> None:
    (tmp_path / "still.yaml").write_text(CARD.replace("1.5e+12", "0"), encoding="utf-8")
    (tmp_path / "lame.yaml").write_text(CARD.replace("peak_flops", "#"), encoding="utf-8")
    (tmp_path / "trace.jsonl").write_text('{"prompt_tokens": 9, "output_tokens": 5}\n', encoding="utf-8")
    (tmp_path / "huge.jsonl").write_text('{"prompt_tokens": 900000, "output_tokens": 5}\n', encoding="utf-8")
    write_jobs(tmp_path / "jobs.jsonl", 2)
    few = () if words[0].endswith(".jsonl") or "--requests" in words else FEW
    done = blendrun("bench", "simulate", *few, *words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_lines_on_different_adapters_share_nothing(tmp_path: Path) -> None:
    folder = word_tokenizer(tmp_path / "words")
    job, prompt = tmp_path / "job.jsonl", " ".join(f"w{number % 50}" for number in range(400))
    words = (*ON, job, "--tokenizer", folder, "--orders", "given", "--overlap", "mixed")

    def sharing(names: list[dict[str, str]], *more: str) -> float:
        bodies = [{"prompt": prompt, "max_tokens": 4, **name} for name in names]
        lines = [{"custom_id": str(n), "url": "/v1/completions", "body": body} for n, body in enumerate(bodies)]
        job.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        (cell,) = simulated(*words, *more)["cells"]
        return float(cell["sharing"])

    declared = ("--engine-arg", 'lora_paths=["sql=/a", "law=/b"]')
    assert sharing([{}, {"lora_path": "sql"}, {"model": "base:law"}]) == 0
    # A name alone is an adapter's where adapters are declared.
    named = [{"model": "sql"}, {"model": "law"}, {"lora_path": "sql"}]
    assert sharing(named, *declared) == pytest.approx(1 / 3, rel=0.01)


def test_of_an_engine_only_adapters_are_told() -> None:
    done = blendrun("bench", "simulate", "job.jsonl", *ON, "--engine-arg", "max_running_requests=4")
    assert done.returncode == 2 and "only lora_paths counts" in " ".join(done.stderr.split())

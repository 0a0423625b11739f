"""A made workload as a file: the same bytes every time, whole or not there, and read back as it was."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import zstandard

from blendrun.cost.formulas import demand
from blendrun.cost.hardware import load_hardware, machine
from blendrun.errors import OutputUnavailableError
from blendrun.events import Event, Progress
from blendrun.jobs.source import open_sources
from blendrun.jobs.trace import read_trace
from blendrun.models.cards import load_card
from blendrun.synth.recipe import Recipe
from blendrun.synth.workload import Synthesis, known_lengths, paper_rho, synthesise
from blendrun.synth.write import write_workload
from blendrun.tokens.trace import trace_prompts
from blendrun.tree.build import build_tree

MODEL, PEAK = load_card("llama-3-8b"), machine(load_hardware("a100-80g"), 1, "peak")


@pytest.fixture(scope="module")
def made() -> Synthesis:
    return synthesise(Recipe.of("burstgpt", "openvid", "mmlu", rho=1.4, sharing=0.35, requests=3_000), MODEL, PEAK)


@pytest.mark.parametrize("name", ["mix.jsonl", "mix.jsonl.gz", "mix.jsonl.zst"])
def test_a_file_read_back_is_the_workload(made: Synthesis, name: str, tmp_path: Path) -> None:
    write_workload(made, tmp_path / name)
    prompts = trace_prompts(read_trace(open_sources([str(tmp_path / name)], tmp_path)))
    tree = build_tree(prompts)
    for column in ("prompt_tokens", "reference", "bound", "cluster", "choices", "known"):
        assert np.array_equal(getattr(prompts, column), getattr(made.prompts, column)), column
    assert (tree.prompt_tokens, tree.shared_tokens) == (made.tree.prompt_tokens, made.tree.shared_tokens)
    asked = demand(tree, prompts, known_lengths(prompts), MODEL, PEAK)
    assert paper_rho(asked, MODEL, PEAK) == pytest.approx(made.rho, rel=1e-12)


def test_the_same_workload_is_the_same_bytes(made: Synthesis, tmp_path: Path) -> None:
    again = synthesise(made.recipe, MODEL, PEAK)
    for suffix in ("", ".gz", ".zst"):
        one, two = tmp_path / f"one.jsonl{suffix}", tmp_path / f"two.jsonl{suffix}"
        write_workload(made, one)
        write_workload(again, two)
        assert one.read_bytes() == two.read_bytes()
    plain = (tmp_path / "one.jsonl").read_bytes()
    assert gzip.decompress((tmp_path / "one.jsonl.gz").read_bytes()) == plain
    assert zstandard.ZstdDecompressor().decompressobj().decompress((tmp_path / "one.jsonl.zst").read_bytes()) == plain


def test_progress_ends_with_all_lines(made: Synthesis, tmp_path: Path) -> None:
    seen: list[Event] = []
    write_workload(made, tmp_path / "mix.jsonl", seen.append)
    assert seen[-1] == Progress(3_000, 3_000, "lines")


def test_a_file_that_cannot_be_written_leaves_nothing(made: Synthesis, tmp_path: Path) -> None:
    with pytest.raises(OutputUnavailableError, match="give another --output"):
        write_workload(made, tmp_path / "no" / "such" / "mix.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputUnavailableError, match="cannot write"):
        write_workload(made, tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]

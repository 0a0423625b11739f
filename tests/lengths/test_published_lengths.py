"""On published answers: a tenth of them seen tells the job's total, its order of lengths, and beats the prior."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from blendrun.lengths.estimate import estimate
from blendrun.lengths.evidence import Samples
from blendrun.names import LengthMode
from tests.lengths.small_tree import make_prompts, make_tree
from tests.needs import workload

FOLDER = Path(__file__).parents[2].parent / "shared" / "workloads"


def lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".zst":
        with path.open("rb") as file:
            yield from map(json.loads, io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file)))
    else:
        with gzip.open(path) as file:
            yield from map(json.loads, file)


@pytest.mark.parametrize(
    ("name", "total_error"),
    [("xquad-qa-5lang.jsonl.gz", 0.1), ("xquad-translate.jsonl.gz", 0.1), ("instruct-mix.jsonl.gz", 0.2)],
)
def test_a_tenth_of_the_answers_tells_the_total(name: str, total_error: float) -> None:
    path = workload(name)
    words: dict[str, int] = {}
    units, bound, reference = [], [], []
    for line in lines(path):
        text = "\n".join(message["content"] for message in line["body"]["messages"])
        units.append([words.setdefault(word, len(words)) for word in text.split()])
        bound.append(line["body"]["max_tokens"])
        reference.append(min(line["metadata"]["reference_output_tokens"] + 1, bound[-1]))
    prompts, tree, truth = make_prompts(units, bound=bound, cluster=bound), make_tree(units), np.array(reference, float)
    drawn = np.random.default_rng(0).choice(len(units), len(units) // 10, replace=False)
    seen = Samples(drawn, truth[drawn], np.ones(len(drawn), dtype=bool))
    found = estimate(prompts, tree, samples=seen).mean
    prior = estimate(prompts, tree, mode=LengthMode.PRIOR).mean
    assert found.sum() == pytest.approx(truth.sum(), rel=total_error)
    assert np.abs(found - truth).mean() < np.abs(prior - truth).mean()
    unseen = np.setdiff1d(np.arange(len(units)), drawn)
    assert np.corrcoef(found[unseen], truth[unseen])[0, 1] > 0.05

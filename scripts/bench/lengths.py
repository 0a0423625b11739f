"""How good estimated lengths are: random samples of the workloads' published answers against all of them.

Prompts are cut into words, not tokens: the tree is the same but for its depths, and no model is needed. Lengths are the
published answers' (SmolLM2 tokens and the end token), a kind is all requests of one `max_tokens`.

    python scripts/bench/lengths.py ../shared/workloads

Each cell is a mean over draws, judged on the prompts not drawn: error of the total in per cent / rank correlation of
estimate and truth / mean error of one prompt against the mean length.
"""

from __future__ import annotations

import argparse
import gzip
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import zstandard
from numpy.typing import NDArray

from blendrun.lengths.estimate import estimate
from blendrun.lengths.evidence import Samples
from blendrun.names import LengthMode
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree
from blendrun.tree.build import build_tree

WORKLOADS = (
    "smoke-mix.jsonl",
    "xquad-qa-5lang.jsonl.gz",
    "xquad-translate.jsonl.gz",
    "instruct-mix.jsonl.gz",
    "squality-long.jsonl.zst",
)
SHRINKAGES = (2.0, 4.0, 8.0, 16.0, 32.0, 1e9)
SHARES = (0.01, 0.1, 0.3)
FINISHED = (0.1, 0.25, 0.5, 0.75, 0.9)


class Workload(NamedTuple):
    name: str
    prompts: Prompts
    tree: PrefixTree
    truth: np.ndarray


def lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".zst":
        with path.open("rb") as file:
            yield from map(orjson.loads, io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file)))
    else:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from map(orjson.loads, file)


def prompts_of(units: list[list[int]], bound: np.ndarray, reference: np.ndarray) -> Prompts:
    size = np.array([len(part) for part in units], dtype=np.int64)
    count = len(units)
    return Prompts(
        row=np.arange(count),
        units=np.array([unit for part in units for unit in part], dtype=np.int32),
        offsets=np.concatenate(([0], np.cumsum(size))),
        unit_tokens=1,
        prompt_tokens=size.astype(np.int32),
        root=np.zeros(count, dtype=np.uint64),
        cluster=bound.astype(np.uint64),
        bound=bound.astype(np.int32),
        choices=np.ones(count, dtype=np.int32),
        reference=reference.astype(np.int32),
        known=np.zeros(count, dtype=np.bool_),
    )


def load(path: Path) -> Workload:
    words: dict[str, int] = {}
    units, bound, reference = [], [], []
    for line in lines(path):
        text = " ".join(f"<{message['role']}> {message['content']}" for message in line["body"]["messages"])
        units.append([words.setdefault(word, len(words)) for word in text.split()])
        bound.append(line["body"]["max_tokens"])
        reference.append(line["metadata"]["reference_output_tokens"] + 1)
    truth = np.minimum(reference, bound).astype(np.float64)
    prompts = prompts_of(units, np.array(bound), truth)
    return Workload(path.name.split(".")[0], prompts, build_tree(prompts), truth)


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, which, count = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[which]
    centred: NDArray[np.float64] = rank - rank.mean()
    return centred


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = ranks(one), ranks(other)
    scale = np.sqrt((one @ one) * (other @ other))
    return float(one @ other / scale) if scale else 0.0


def judge(job: Workload, share: float, shrinkage: float, draws: int) -> str:
    scores = []
    for draw in range(draws):
        count = max(8, int(len(job.prompts) * share))
        drawn = np.random.default_rng(draw).choice(len(job.prompts), count, replace=False)
        seen = Samples(drawn, job.truth[drawn], np.ones(count, dtype=np.bool_))
        rest = np.ones(len(job.prompts), dtype=np.bool_)
        rest[drawn] = False
        found = estimate(job.prompts, job.tree, samples=seen, shrinkage=shrinkage).mean[rest]
        truth = job.truth[rest]
        total = 100 * abs(found.sum() / truth.sum() - 1)
        scores.append((total, rank_correlation(found, truth), np.abs(found - truth).mean() / truth.mean()))
    total, rank, error = np.mean(scores, axis=0)
    return f"{total:.1f} / {rank:.2f} / {error:.2f}"


def censored(job: Workload, quantile: float, draws: int) -> str:
    """Error of the total when a tenth of the job began together and this share of it has finished."""
    errors = []
    for draw in range(draws):
        count = max(64, len(job.prompts) // 10)
        drawn = np.random.default_rng(draw).choice(len(job.prompts), count, replace=False)
        now = np.quantile(job.truth[drawn], quantile)
        finished = job.truth[drawn] <= now
        both = Samples(drawn, np.minimum(job.truth[drawn], now), finished)
        ended = Samples(drawn[finished], both.tokens[finished], finished[finished])
        sums = [estimate(job.prompts, job.tree, samples=seen).mean.sum() for seen in (both, ended)]
        errors.append(100 * (np.array(sums) / job.truth.sum() - 1))
    both_error, ended_error = np.mean(errors, axis=0)
    return f"{both_error:+.0f} % ({ended_error:+.0f} %)"


def table(title: str, head: list[str], rows: list[list[str]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def at_scale(count: int) -> None:
    """Time of one estimate for `count` prompts, ten to a passage."""
    numbers = np.arange(count)
    units = np.stack((np.zeros(count, np.int64), numbers // 10 + 1, numbers % 10), axis=1).astype(np.int32)
    bare = prompts_of([[0]], np.full(1, 4096), np.full(1, -1))
    wide: dict[str, Any] = {
        name: np.repeat(getattr(bare, name), count) for name in ("root", "cluster", "bound", "choices", "known")
    }
    narrow: dict[str, Any] = {
        "row": numbers,
        "units": units.ravel(),
        "offsets": np.arange(count + 1) * 3,
        "unit_tokens": 1,
    }
    three, unknown = np.full(count, 3, np.int32), np.full(count, -1, np.int32)
    prompts = Prompts(**narrow, **wide, prompt_tokens=three, reference=unknown)
    tree, rng = build_tree(prompts), np.random.default_rng(0)
    print(f"\nOne estimate of {count:,} prompts")
    for share in (0.0, *SHARES, 1.0):
        drawn = rng.choice(count, int(count * share), replace=False)
        seen = Samples(drawn, np.ceil(rng.exponential(200.0, len(drawn))), rng.random(len(drawn)) < 0.8)
        began = time.perf_counter()
        estimate(prompts, tree, samples=seen)
        print(f"  {len(seen):,} samples: {time.perf_counter() - began:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", type=Path, help="folder with the workloads")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=1_000_000, help="size of the job that is timed")
    asked = parser.parse_args()
    jobs = [load(asked.workloads / name) for name in WORKLOADS]
    rows = []
    for job in jobs:
        prior = estimate(job.prompts, job.tree, mode=LengthMode.PRIOR).mean.mean()
        rows.append([job.name, f"{job.truth.mean():.0f}", f"{prior:.0f}"])
    table("Prior: mean length", ["workload", "true", "prior"], rows)
    for share in SHARES:
        rows = [[job.name, *(judge(job, share, k, asked.draws) for k in SHRINKAGES)] for job in jobs]
        names = [f"k = {k:.0f}" if k < 1e9 else "no tree" for k in SHRINKAGES]
        table(f"{share:.0%} of the prompts seen (8 at least)", ["workload", *names], rows)
    rows = [[job.name, *(censored(job, part, asked.draws) for part in FINISHED)] for job in jobs[1:]]
    title = "A tenth began together; error of the total when a share of it has finished (finished ones alone)"
    table(title, ["workload", *(f"{part:.0%}" for part in FINISHED)], rows)
    at_scale(asked.prompts)


if __name__ == "__main__":
    main()

"""Small cuts of the real workloads, for benchmarks on the CPU runtime.

A cut keeps whole groups of requests that share a prefix, in the file's own order, so that sharing is as far apart as it
was. Answers get the length of the published one (at most `longest`), by `max_tokens` and `ignore_eos`: every order
then makes the same tokens, and lengths are as unequal as in real answers.
"""

from __future__ import annotations

import gzip
import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import zstandard

WORKLOADS = Path(__file__).parents[3] / "shared" / "workloads"


@dataclass(frozen=True)
class Cut:
    """Which requests of a file. groups: of a shared prefix; each: requests of a group at most.

    key: characters of the last message that tell groups apart. pool: KV tokens that cannot hold the cut.
    skip: of the prompt's characters, what is too long for the model's context.
    """

    file: str
    groups: int
    each: int
    key: int
    longest: int
    pool: int
    skip: int = 1 << 30


CUTS = {
    "xquad-qa": Cut("xquad-qa-5lang.jsonl.gz", groups=24, each=5, key=300, longest=32, pool=4096),
    "squality": Cut("squality-long.jsonl.zst", groups=3, each=4, key=2000, longest=48, pool=9216, skip=24_000),
    "smoke-mix": Cut("smoke-mix.jsonl", groups=48, each=4, key=120, longest=64, pool=3072),
    "instruct": Cut("instruct-mix.jsonl.gz", groups=48, each=2, key=80, longest=96, pool=3072, skip=2500),
    "mmlu": Cut("mmlu-5shot.jsonl.zst", groups=8, each=8, key=100, longest=1, pool=3072),
    "translate": Cut("xquad-translate.jsonl.gz", groups=5, each=11, key=60, longest=64, pool=2048),
}
# "mix" is one of these.
MIXED = ("xquad-qa", "smoke-mix", "mmlu")
MIX_POOL = 4096


def write_cut(name: str, folder: Path, workloads: Path = WORKLOADS) -> Path:
    """Write the cut of that name as a job; "mix" is one of several."""
    if name == "mix":
        lines = [line for each in MIXED for line in _lines(each, CUTS[each], workloads)]
        lines = [lines[place] for place in _spread(len(lines))]
    else:
        lines = list(_lines(name, CUTS[name], workloads))
    path = folder / f"{name}.jsonl"
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


def pool_of(name: str) -> int:
    return MIX_POOL if name == "mix" else CUTS[name].pool


def _lines(name: str, cut: Cut, workloads: Path) -> Iterator[dict[str, Any]]:
    taken: dict[str, int] = defaultdict(int)
    for line in _read(workloads / cut.file):
        text = line["body"]["messages"][-1]["content"]
        group = text[: cut.key]
        full = len(taken) >= cut.groups if group not in taken else taken[group] >= cut.each
        if full or len(text) > cut.skip:
            continue
        taken[group] += 1
        tokens = max(min(line["metadata"]["reference_output_tokens"] + 1, cut.longest), 1)
        line["custom_id"] = f"{name}-{line['custom_id']}"
        line["body"] |= {"max_tokens": tokens, "ignore_eos": True, "temperature": 0}
        line["body"].pop("stop", None)
        yield line


def _read(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".zst":
        with path.open("rb") as file:
            yield from map(orjson.loads, io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file)))
    elif path.suffix == ".gz":
        with gzip.open(path) as file:
            yield from map(orjson.loads, file)
    else:
        yield from map(orjson.loads, path.read_bytes().splitlines())


def _spread(count: int) -> list[int]:
    """Places 0 to count - 1 in a fixed random order."""
    import random

    places = list(range(count))
    random.Random(0).shuffle(places)
    return places

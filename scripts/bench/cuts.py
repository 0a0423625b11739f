"""Small cuts of the real workloads, for benchmarks on the CPU runtime.

A cut keeps whole groups of requests that share a prefix, in the file's own order, so that sharing is as far apart as it
was. Answers get the length of the published one (at most `longest`), by `max_tokens` and `ignore_eos`: every order
then makes the same tokens, and lengths are as unequal as in real answers. `known-case` is made here: 300 requests of 30
groups with random ids, in a pool that holds seven groups.
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
    skip: of the prompt's characters, what is too long for the model's context. middle: characters that are left of the
    last message, its end whole, so that texts of a book's length fit.
    """

    file: str
    groups: int
    each: int
    key: int
    longest: int
    pool: int
    skip: int = 1 << 30
    middle: int = 1 << 30


CUTS = {
    "xquad-qa": Cut("xquad-qa-5lang.jsonl.gz", groups=24, each=5, key=300, longest=32, pool=4096),
    "squality": Cut("squality-long.jsonl.zst", groups=8, each=5, key=2000, longest=24, pool=4096, middle=5000),
    "smoke-mix": Cut("smoke-mix.jsonl", groups=48, each=4, key=120, longest=64, pool=3072),
    "instruct": Cut("instruct-mix.jsonl.gz", groups=48, each=2, key=80, longest=96, pool=3072, skip=2500),
    "mmlu": Cut("mmlu-5shot.jsonl.zst", groups=8, each=8, key=100, longest=1, pool=3072),
    "translate": Cut("xquad-translate.jsonl.gz", groups=5, each=11, key=60, longest=64, pool=2048),
}
# "mix" is one of these.
MIXED = ("xquad-qa", "smoke-mix", "mmlu")
MIX_POOL = 4096
KNOWN_CASE = "known-case"


_END = 400


def write_cut(name: str, folder: Path, scale: float = 1.0, workloads: Path = WORKLOADS) -> Path:
    """Write the cut of that name as a job, with that part of its groups; "mix" is one of several."""
    if name == KNOWN_CASE:
        lines = list(_known_case())
    elif name == "mix":
        lines = [line for each in MIXED for line in _lines(each, CUTS[each], workloads, scale)]
        lines = [lines[place] for place in _spread(len(lines))]
    else:
        lines = list(_lines(name, CUTS[name], workloads, scale))
    path = folder / f"{name}.jsonl"
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


def pool_of(name: str) -> int:
    return MIX_POOL if name == "mix" else CUTS[name].pool


def _known_case() -> Iterator[dict[str, Any]]:
    import random

    rng = random.Random(0)
    heads = [[rng.randrange(1000, 40_000) for _ in range(96)] for _ in range(30)]
    for place in _spread(300):
        prompt = heads[place // 10] + [rng.randrange(1000, 40_000) for _ in range(16)]
        body = {"prompt": prompt, "max_tokens": 4, "ignore_eos": True, "temperature": 0}
        yield {"custom_id": f"known-{place}", "url": "/v1/completions", "body": body}


def _lines(name: str, cut: Cut, workloads: Path, scale: float) -> Iterator[dict[str, Any]]:
    groups = max(round(cut.groups * scale), 1)
    taken: dict[str, int] = defaultdict(int)
    for line in _read(workloads / cut.file):
        text = line["body"]["messages"][-1]["content"]
        group = text[: cut.key]
        full = len(taken) >= groups if group not in taken else taken[group] >= cut.each
        if full or len(text) > cut.skip:
            continue
        taken[group] += 1
        if len(text) > cut.middle:
            line["body"]["messages"][-1]["content"] = text[: cut.middle - _END] + text[-_END:]
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

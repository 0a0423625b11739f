"""What a job's lines need an engine for, and whether one engine of one model will do."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from blendrun.endpoints.registry import ENDPOINTS
from blendrun.errors import InputInvalidError
from blendrun.jobs.job import Job
from blendrun.models.kind import ModelKind
from blendrun.models.resolve import ResolvedModel
from blendrun.names import Purpose
from blendrun.runner.settings import FindPurpose
from blendrun.text import plural

_EMBEDDINGS, _SCORE, _RERANK, _CLASSIFY = "/v1/embeddings", "/v1/score", "/v1/rerank", "/v1/classify"
# What each kind of model answers, and what its engine is started for then.
_SERVED: dict[ModelKind, dict[str, Purpose]] = {
    ModelKind.GENERATOR: {url: Purpose.GENERATE for url in ENDPOINTS if url != _CLASSIFY}
    | {_EMBEDDINGS: Purpose.EMBED},
    ModelKind.EMBEDDER: {_EMBEDDINGS: Purpose.EMBED},
    ModelKind.CLASSIFIER: dict.fromkeys((_SCORE, _RERANK, _CLASSIFY), Purpose.EMBED),
}
_WHAT = {
    ModelKind.GENERATOR: "has no classification head",
    ModelKind.EMBEDDER: "only embeds",
    ModelKind.CLASSIFIER: "only classifies and scores",
}


def find_purpose(model: ResolvedModel, arguments: dict[str, Any]) -> FindPurpose:
    """For engines of a model with these arguments (the user's own)."""
    served = _SERVED[model.kind]
    given = arguments.get("is_embedding")
    if model.kind is ModelKind.GENERATOR and given is not None:
        wanted = Purpose.EMBED if given else Purpose.GENERATE
        served = {url: purpose for url, purpose in served.items() if purpose is wanted}

    def find(job: Job) -> Purpose:
        needed: dict[Purpose, Counter[str]] = {}
        others: Counter[str] = Counter()
        for url, count in _count(job).items():
            (needed.setdefault(served[url], Counter()) if url in served else others)[url] = count
        if others:
            why = _WHAT[model.kind] if given is None else f"runs with is_embedding={given}"
            raise InputInvalidError(_not_served(f"{model.name} {why}", others, beside=bool(needed)))
        if len(needed) > 1:
            raise InputInvalidError(_two_engines(needed))
        return next(iter(needed), Purpose.GENERATE)

    return find


def _count(job: Job) -> Counter[str]:
    """Lines that can run, by url."""
    counts = np.bincount(job.endpoint[job.accepted], minlength=len(ENDPOINTS)).tolist()
    return Counter({url: count for url, count in zip(ENDPOINTS, counts, strict=True) if count})


def _not_served(why: str, lines: Counter[str], *, beside: bool) -> str:
    text = f"{why}, and {_shown(lines)} {_need(lines)} another engine"
    return f"{text}; {_how_to_split(lines)}" if beside else f"{text}: give --model one that answers them"


def _two_engines(needed: dict[Purpose, Counter[str]]) -> str:
    generate, embed = needed[Purpose.GENERATE], needed[Purpose.EMBED]
    first = f"{_shown(generate)} {_need(generate)} one that generates"
    text = f"the job needs two engines: {first}, {_shown(embed)} one that embeds"
    return f"{text}; {_how_to_split(embed)}"


def _shown(lines: Counter[str]) -> str:
    return " and ".join(f"{plural(count, 'line')} of {url}" for url, count in lines.items())


def _need(lines: Counter[str]) -> str:
    return "needs" if lines.total() == 1 else "need"


def _how_to_split(lines: Counter[str]) -> str:
    """Two commands for a file of lines that name their url."""
    names = "|".join(url.rpartition("/")[2] for url in lines)
    taken = f'(.url // "") | test("({names})/?$")'
    return (
        f"split it: jq -c 'select({taken})' JOB.jsonl > THESE.jsonl; "
        f"jq -c 'select({taken} | not)' JOB.jsonl > OTHERS.jsonl"
    )

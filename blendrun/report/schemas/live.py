"""What `bench live` measured, as data. Schema version 1; fields are only ever added."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from blendrun.bench.live import Round
from blendrun.names import SIMPLE_ORDERS, OrderName

SCHEMA_VERSION = 1


class LiveRow(msgspec.Struct, frozen=True):
    """One order on one overlap mode. seconds: of each repeat; median: of these.

    output_per_second, total_per_second: tokens, by the median. hit_rate: cached tokens over prompt tokens.
    over_best_simple: median seconds of the fastest simple order over this one's, above 1 where this one is faster;
    over_given: likewise over the given order. lowest, highest: of `over_best_simple`, repeat by repeat. null where
        there is no such order.
    chosen: the order that was run. predicted_seconds, predicted_hit_rate: by the plan, of blended and auto.
    """

    order: str
    overlap: str
    chosen: str
    seconds: tuple[float, ...]
    median: float
    output_per_second: float
    total_per_second: float
    hit_rate: float
    over_best_simple: float | None
    lowest: float | None
    highest: float | None
    over_given: float | None
    predicted_seconds: float | None
    predicted_hit_rate: float | None


class LiveReport(msgspec.Struct, frozen=True):
    """One comparison. kv_tokens: of the engine's pool."""

    schema_version: int
    job: str
    requests: int
    prompt_tokens: int
    output_tokens: int
    model: str
    platform: str
    kv_tokens: int | None
    repeats: int
    versions: dict[str, str]
    best_simple: str | None
    rows: tuple[LiveRow, ...]


def live_report(
    rounds: Sequence[Round],
    *,
    job: str,
    requests: int,
    model: str,
    platform: str,
    kv_tokens: int | None,
    versions: dict[str, str],
) -> LiveReport:
    """rounds: at least one."""
    groups: dict[tuple[str, str], list[Round]] = {}
    for each in rounds:
        groups.setdefault((each.order, each.overlap), []).append(each)
    medians = {key: statistics.median(each.seconds for each in group) for key, group in groups.items()}
    simple = [key for key in groups if key[0] in SIMPLE_ORDERS]
    best = min(simple, key=lambda key: medians[key], default=None)
    given = min((key for key in simple if key[0] == OrderName.GIVEN), key=lambda key: medians[key], default=None)
    first = rounds[0]
    return LiveReport(
        schema_version=SCHEMA_VERSION,
        job=job,
        requests=requests,
        prompt_tokens=first.prompt,
        output_tokens=first.output,
        model=model,
        platform=platform,
        kv_tokens=kv_tokens,
        repeats=max(each.repeat for each in rounds) + 1,
        versions=versions,
        best_simple=None if best is None else f"{best[0]} on {best[1]}",
        rows=tuple(
            _row(group, groups.get(best) if best else None, medians.get(given) if given else None)
            for group in groups.values()
        ),
    )


def _row(group: list[Round], best: list[Round] | None, given: float | None) -> LiveRow:
    seconds = tuple(round(each.seconds, 3) for each in group)
    median = statistics.median(seconds)
    first = group[0]
    ratios = [] if best is None else [one.seconds / other.seconds for one, other in zip(best, group, strict=False)]
    prompt = sum(each.prompt for each in group)
    predicted, cached = first.predicted, first.predicted_cached
    return LiveRow(
        order=str(first.order),
        overlap=str(first.overlap),
        chosen=first.chosen,
        seconds=seconds,
        median=median,
        output_per_second=first.output / median,
        total_per_second=(first.prompt + first.output) / median,
        hit_rate=sum(each.cached for each in group) / max(prompt, 1),
        over_best_simple=None if best is None else statistics.median(each.seconds for each in best) / median,
        lowest=min(ratios, default=None),
        highest=max(ratios, default=None),
        over_given=None if given is None else given / median,
        predicted_seconds=predicted,
        predicted_hit_rate=None if cached is None else cached / max(first.prompt, 1),
    )


def live_json(report: LiveReport) -> bytes:
    return msgspec.json.format(msgspec.json.encode(report), indent=2)


def live_schema() -> bytes:
    """JSON schema of `live_json`."""
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(LiveReport)), indent=2)

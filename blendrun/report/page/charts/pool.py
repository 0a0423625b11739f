"""The picture of the KV pool and the prefix cache over time."""

from __future__ import annotations

from typing import Any

from blendrun.report.page.charts.base import (
    ZOOM,
    Bounds,
    Chart,
    frame,
    number,
    over_time,
    percent,
    quantity,
    sampled,
    since,
)
from blendrun.report.page.charts.timeline import RUNS, spans
from blendrun.report.page.scale import stretched
from blendrun.report.page.subject import Subject
from blendrun.report.schemas.series import Series

_HIT, _KV = "#009E73", "#CC79A7"
_POOL, _CACHE = "KV pool in use", "prompt tokens from the cache, so far"
_FULL = 0.95


def occupancy(subject: Subject, bounds: Bounds) -> Chart | None:
    """KV pool in use and prompt tokens from the cache over time."""
    shown = subject.series or subject.planned
    if shown is None:
        return None
    named = [(each, name) for each, name in ((subject.series, ""), (subject.planned, " (planned)")) if each is not None]
    factor = stretched(subject)
    points = [
        {"t": start, "share": share, "kind": f"{kind}{name}"}
        for each, name in named
        for start, *shares in _shares(
            each, _pool(subject), (1.0 if each is subject.series else factor) / bounds.clock.seconds
        )
        for kind, share in zip((_POOL, _CACHE), shares, strict=True)
        if share is not None
    ]
    kinds = [f"{kind}{name}" for _, name in named for kind in (_POOL, _CACHE)]
    dashes = [[1, 0] if each is shown else [5, 3] for each, _ in named for _ in range(2)]
    finding = finding_of(shown, _pool(subject), planned=subject.series is None)
    table = [(number(at), percent(used), percent(hit)) for at, used, hit in _shares(shown, _pool(subject), 1.0)]
    spec = _lines(points, kinds, [_KV, _HIT] * len(named), dashes, bounds)
    heads = ("from second", _POOL, _CACHE)
    several = subject.requests is not None and subject.requests.invocations > 1
    note = "Prompts that were asked again after a stop count twice here, and once above" if several else ""
    return Chart("occupancy", finding, frame(spec, 180, finding), heads, tuple(sampled(table)), note)


def occupancy_of_both(one: Subject, other: Subject, bounds: Bounds) -> Chart | None:
    """Prompt tokens from the cache of two runs of one job, over each other."""
    if one.series is None or other.series is None:
        return None
    points, table, ends = [], [], []
    for subject, series in ((one, one.series), (other, other.series)):
        shares = _shares(series, _pool(subject), 1.0)
        points += [
            {"t": at / bounds.clock.seconds, "share": hit, "kind": subject.name}
            for at, _, hit in shares
            if hit is not None
        ]
        table += [(subject.name, number(at), percent(used), percent(hit)) for at, used, hit in sampled(shares)]
        ends.append(f"{subject.name} {percent(shares[-1][2])}")
    finding = f"Prompt tokens from the cache in the end: {', '.join(ends)}"
    spec = _lines(points, [one.name, other.name], list(RUNS), [[1, 0], [1, 0]], bounds)
    return Chart("occupancy", finding, frame(spec, 180, finding), ("run", "from second", _POOL, _CACHE), tuple(table))


def finding_of(shown: Series, pool: int | None, *, planned: bool) -> str:
    """How full the pool was at most, and what came from the cache in the end."""
    begin, be, came = ("The plan: the", "is", "come") if planned else ("The", "was", "came")
    shares = _shares(shown, pool, 1.0)
    hit = shares[-1][2]
    cached = "" if hit is None else f"{100 * hit:.0f} % of the prompt tokens {came} from the cache"
    used = [each for _, each, _ in shares if each is not None]
    if not used:
        return cached or "Nothing is read"
    full = sum(each >= _FULL for each in used) / len(used)
    if full > 0:
        filled = f"{begin} KV pool {be} full for {100 * full:.0f} % of the time"
    else:
        filled = f"{begin} KV pool {be} never more than {_at_most(max(used))} full"
    return f"{filled}; {cached}" if cached else filled


def _at_most(share: float) -> str:
    return "1 %" if share <= 0.01 else f"{100 * share:.0f} %"


def _pool(subject: Subject) -> int | None:
    return subject.plan.hardware.pool_tokens if subject.plan else None


def _shares(series: Series, pool: int | None, factor: float) -> list[tuple[float, float | None, float | None]]:
    """Of each bucket: when it begins, how full the pool is, what share of the prompts so far came from the cache."""
    cached, computed, found = 0.0, 0.0, []
    for (start, _), held, hits, prefill in zip(
        spans(series, factor), series.held, series.hits, series.prefill, strict=True
    ):
        cached, computed = cached + hits, computed + prefill
        hit = cached / (cached + computed) if cached + computed > 0 else None
        found.append((start, held / pool if pool else None, hit))
    return found


def _lines(
    points: list[dict[str, Any]], kinds: list[str], colours: list[str], dashes: list[list[int]], bounds: Bounds
) -> dict[str, Any]:
    def of_kind(scale: list[Any]) -> dict[str, Any]:
        return {
            "field": "kind",
            "type": "nominal",
            "title": None,
            "legend": {"columns": 1},
            "scale": {"domain": kinds, "range": scale},
        }

    return {
        "data": {"values": points},
        "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.8},
        "params": [ZOOM],
        "encoding": {
            "x": over_time(bounds),
            "y": quantity("share", axis={"format": "%", "tickCount": 5}, scale={"domain": [0, 1], "clamp": True}),
            "color": of_kind(colours),
            "strokeDash": of_kind(dashes),
            "tooltip": [
                since(bounds.clock),
                {"field": "kind", "title": "what"},
                {"field": "share", "title": "share", "format": ".1%"},
            ],
        },
    }

"""Whether the time left that was shown held the truth: the rule, and recorded runs to hold against it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from blendrun.events import EngineStats, Event, Expected, PhaseStarted, Progress, Work
from blendrun.learned.ahead import Ahead, seconds_ahead
from blendrun.learned.outlook import Outlook
from blendrun.learned.pace import Pace

_KINDS: dict[str, Any] = {each.__name__: each for each in (EngineStats, Expected, PhaseStarted, Progress, Work)}
# A range is looked at from the first tenth of the run on, at each event. It may be off by what a person does not see.
_FROM, _UNSEEN_S = 0.1, 0.5
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Moment:
    """An event of a run, with what was ahead then: of all, and of what is in flight. second: since the run began."""

    second: float
    event: Event
    whole: Ahead | None = None
    in_flight: Ahead | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """What a person saw. held: part of the moments at which the range held the truth, those without one included.
    width: median of the ranges' widths, as part of the whole run. none: part of the moments without a range.
    """

    moments: int
    held: float
    width: float
    none: float


class Clock:
    """Seconds that a replay moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(moments: Iterable[Moment], ends: float) -> Shown:
    """Play a run through the outlook. ends: the second at which its last answer came."""
    clock = Clock()
    outlook = Outlook(clock)
    held, widths, count = 0, list[float](), 0
    for moment in moments:
        clock.now = moment.second
        outlook.take(_computed(moment))
        if not _FROM * ends <= moment.second <= ends or not isinstance(moment.event, Work | Progress):
            continue
        count += 1
        if (left := outlook.left()) is not None:
            truth = ends - moment.second
            held += left[0] - _UNSEEN_S <= truth <= left[1] + _UNSEEN_S
            widths.append((left[1] - left[0]) / ends)
    return Shown(count, held / count, float(np.median(widths)), 1 - len(widths) / count)


def _computed(moment: Moment) -> Event:
    """The event, with seconds computed by the code of today."""
    event = moment.event
    if not isinstance(event, Work) or moment.whole is None:
        return event
    flight = None if moment.in_flight is None else seconds_ahead(moment.in_flight)
    return replace(event, ahead=seconds_ahead(moment.whole), in_flight=flight)


def write_recording(path: Path, moments: Iterable[Moment], ends: float) -> None:
    """As small as it goes: tables of lengths are written once, numbers to four digits."""
    tables: dict[str, int] = {}
    rows = [
        [round(each.second, 2), type(each.event).__name__, asdict(each.event)]
        + [None if ahead is None else _plain(ahead, tables) for ahead in (each.whole, each.in_flight)]
        for each in moments
    ]
    whole = {"ends": round(ends, 2), "tables": [json.loads(text) for text in tables], "moments": rows}
    path.write_bytes(gzip.compress(json.dumps(whole, separators=(",", ":")).encode(), mtime=0))


def read_recording(path: Path) -> tuple[list[Moment], float]:
    """The moments of a run, and the second at which its last answer came."""
    found = json.loads(gzip.decompress(path.read_bytes()))
    tables = np.array(found["tables"], dtype=np.float64)
    moments = []
    for second, kind, fields, whole, flight in found["moments"]:
        event = msgspec.convert(fields, _KINDS[kind])
        moments.append(Moment(second, event, _ahead(whole, tables), _ahead(flight, tables)))
    return moments, found["ends"]


def _plain(ahead: Ahead, tables: dict[str, int]) -> list[Any]:
    def numbers(lengths: np.ndarray[Any, np.dtype[np.float64]]) -> list[int]:
        texts = [json.dumps([float(f"{value:.{_DIGITS}g}") for value in row]) for row in lengths.tolist()]
        return [tables.setdefault(text, len(tables)) for text in texts]

    pace = [float(f"{value:.{_DIGITS}g}") for value in asdict(ahead.pace).values()]
    return [
        ahead.made.astype(int).tolist(),
        numbers(ahead.running),
        numbers(ahead.waiting),
        list(ahead.fresh),
        ahead.slots,
        pace,
        ahead.guessed,
    ]


def _ahead(plain: list[Any] | None, tables: np.ndarray[Any, np.dtype[np.float64]]) -> Ahead | None:
    if plain is None:
        return None
    made, running, waiting, fresh, slots, pace, guessed = plain
    return Ahead(
        np.array(made, dtype=np.float64),
        tables[np.array(running, dtype=np.int64)],
        tables[np.array(waiting, dtype=np.int64)],
        tuple(fresh),
        slots,
        Pace(*pace),
        guessed,
    )

"""How long what runs and what waits will take: futures drawn from the lengths that answers may have, each added up."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.learned.pace import Pace

Floats = NDArray[np.float64]

# Levels at which the lengths of answers are tabulated, closer where tails are long, and the most requests that futures
# are drawn of, one by one.
LEVELS = np.concatenate((np.linspace(0.0, 0.96, 25), (0.975, 0.99, 0.997, 1.0)))
MOST_WAITING, MOST_RUNNING = 512, 1024
_FUTURES = 48
# The range has this share of the futures on either side of it.
_OUTSIDE = 0.05
# Whether answers are longer than expected depends on the kind, and kinds are few: this part of a length's luck is that
# of all. It is less where answers of the kind were seen.
_COMMON_GUESSED, _COMMON_SEEN = 0.8, 0.45
# What a pace may be off by before any step was seen, and the seconds of steps that halve it.
_PACE_KNOWN_AFTER, _PACE_UNKNOWN_BY = 2.0, 0.6
# Steps become slower rather than faster: their rows grow, and other work comes to the machine.
_FASTER, _SLOWER = 1.12, 1.22


@dataclass(frozen=True, slots=True, eq=False)
class Ahead:
    """F answers under way, W that wait, in the order in which they will begin.

    made: f64 (F,), tokens that they have. running: f64 (F, 29), lengths of these answers at `LEVELS`, not below the one
    before. waiting: f64 (W, 29). fresh: least and most prompt tokens that are still to be computed. slots: answers that
    run at once. guessed: whether no answer of their kinds was ever seen.
    """

    made: Floats
    running: Floats
    waiting: Floats
    fresh: tuple[float, float]
    slots: int
    pace: Pace
    guessed: bool


def seconds_ahead(ahead: Ahead) -> tuple[float, float]:
    """Least and most seconds until all of it is answered: nine of ten futures lie between."""
    pace = ahead.pace
    decode, most_fresh = _decode_seconds(ahead), ahead.fresh[1]
    by_decode, by_prefill = _unknown(pace.decode_seen), _unknown(pace.prefill_seen)
    low, high = np.quantile(decode, (_OUTSIDE, 1 - _OUTSIDE))
    slower = _SLOWER * pace.wall
    # The machine stays as it was on the mean of the last minute, or as it was at some moment of it.
    low, high = float(low) * pace.fastest, float(high) * pace.slowest
    return (
        low / (_FASTER * by_decode) + ahead.fresh[0] * pace.prefill / (_FASTER * by_prefill),
        high * slower * by_decode + most_fresh * pace.prefill * slower * by_prefill,
    )


def _unknown(seen: float) -> float:
    """How often as long, or as short, a step may take as those that were seen. seen: seconds of them."""
    return 1.0 + _PACE_UNKNOWN_BY * _PACE_KNOWN_AFTER / (_PACE_KNOWN_AFTER + seen)


def _decode_seconds(ahead: Ahead) -> Floats:
    """Seconds that decoding takes in each future: f64 (K,)."""
    running, waiting = len(ahead.running), len(ahead.waiting)
    if not running + waiting:
        return np.zeros(1)
    luck = _luck(running + waiting, _COMMON_GUESSED if ahead.guessed else _COMMON_SEEN)
    left = np.empty((_FUTURES, running + waiting))
    left[:, :running] = _left(ahead.running, ahead.made, luck[:, :running])
    left[:, running:] = _left(ahead.waiting, np.zeros(waiting), luck[:, running:])
    slots = max(ahead.slots, running, 1)
    ends = left if running + waiting <= slots else _begun_in_turn(left, slots)
    ends = np.sort(ends, axis=1)
    rows = np.minimum(np.arange(running + waiting, 0, -1), slots)
    steps = np.diff(ends, axis=1, prepend=0.0)
    found: Floats = steps @ (ahead.pace.base + ahead.pace.row * rows)
    return found


def _luck(answers: int, common: float) -> Floats:
    """At which level of what is expected each answer ends: f64 (K, answers), alike at every call.

    common: part of the luck, as correlation, that all answers of a future have together.
    """
    drawn = np.random.default_rng(0)
    # What all share is spread evenly over its levels, so that few futures tell what many would.
    shared = _normal((np.arange(_FUTURES) + 0.5) / _FUTURES)
    alone = drawn.standard_normal((_FUTURES, answers))
    return _level(common * shared[:, None] + np.sqrt(1 - common * common) * alone)


def _normal(level: Floats) -> Floats:
    """The place of a level in a normal distribution, by the logistic one that is close to it."""
    found: Floats = np.log(level / (1 - level)) / 1.702
    return found


def _level(place: Floats) -> Floats:
    found: Floats = 1 / (1 + np.exp(-1.702 * place))
    return found


def _left(lengths: Floats, made: Floats, luck: Floats) -> Floats:
    """Tokens that answers still get, f64 (K, n): of the lengths beyond what they have, that at the level of luck."""
    if not len(made):
        return np.empty((len(luck), 0))
    most = len(LEVELS) - 2
    # The level that is behind each answer, between two places of its table.
    place = np.clip((lengths <= made[:, None]).sum(axis=1) - 1, 0, most)
    each = np.arange(len(made))
    low, high = lengths[each, place], lengths[each, place + 1]
    part = np.divide(made - low, high - low, out=np.zeros(len(made)), where=high > low)
    behind = LEVELS[place] + np.clip(part, 0.0, 1.0) * np.diff(LEVELS)[place]
    at = behind + (1 - behind) * luck
    under = np.clip(np.searchsorted(LEVELS, at, side="right") - 1, 0, most)
    part = (at - LEVELS[under]) / np.diff(LEVELS)[under]
    drawn = lengths[each, under] + part * (lengths[each, under + 1] - lengths[each, under])
    # Whatever was expected, an answer that has not ended gets one more token.
    left: Floats = np.maximum(drawn - made, 1.0)
    return left


def _begun_in_turn(left: Floats, slots: int) -> Floats:
    """The step at which each answer ends where only so many run at once: f64 (K, n)."""
    ends = left.copy()
    for future in ends:
        running = future[:slots].tolist()
        heapq.heapify(running)
        for place in range(slots, len(future)):
            future[place] += running[0]
            heapq.heapreplace(running, future[place])
    return ends

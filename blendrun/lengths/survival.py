"""Lengths of answers of which some still run: the Kaplan-Meier curve, its moments, and what is left to come.

Own code, not a dependency: the survival libraries bring SciPy and pandas with them, and fit one group a call; this is
one sort and a few cumulative sums for all groups at once (tested against a step-by-step estimator and closed forms).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Groups = NDArray[np.int64]

_NO_MASS = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """A answers seen, each in one of G groups.

    group: i64 (A,), 0..G-1. tokens: f64 (A,). finished: bool (A,), False where the answer is longer than `tokens`.
    weight: f64 (A,), answers that this one stands for, > 0.
    """

    group: Groups
    tokens: Floats
    finished: NDArray[np.bool_]
    weight: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """Kaplan-Meier curves of G groups, as places on the axis of tokens with probability mass.

    seen: f64 (G,), weight of the group's answers; a group with 0 has no curve, and moments of 0.
    mean, square: f64 (G,), restricted mean of d and of d^2: mass beyond the last answer that finished is put at its
        expected place, `_tail`, never beyond the group's limit.
    """

    seen: Floats
    mean: Floats
    square: Floats
    _value: Floats
    _begun: Floats
    _key: Floats
    _width: float
    _end: Groups
    _suffix: Floats
    _limit: Floats
    _life: Floats

    def beyond(self, group: Groups, tokens: Floats) -> tuple[Floats, Floats]:
        """E[d | d > tokens] and E[d^2 | d > tokens] in each group: (Q,), (Q,) -> f64 (Q,), f64 (Q,)."""
        place = np.minimum(np.searchsorted(self._key, group * self._width + tokens, side="right"), self._end[group])
        mass, first, second = self._suffix[:, place] - self._suffix[:, self._end[group]]
        limit = self._limit[group]
        tail, tail_square = _tail(np.minimum(tokens, limit), limit, self._life[group])
        inside = mass > _NO_MASS
        mass = np.where(inside, mass, 1.0)
        mean = np.clip(np.where(inside, first / mass, tail), tokens, np.maximum(limit, tokens))
        return mean, np.maximum(np.where(inside, second / mass, tail_square), mean**2)

    def quantile(self, group: Groups, level: Floats) -> Floats:
        """The length that `level` of a group's answers (0 to 1) do not exceed: (Q,), (Q,) -> f64 (Q,).

        0 without a curve. Behind the longest answer, where that still runs, lives are exponential up to the limit, as
        in the means.
        """
        found = np.zeros(len(group))
        some = np.flatnonzero(self.seen[group] > 0)
        group, level = group[some], level[some]
        # Mass behind each place, that of all later groups included, which is 1 each: it falls along the places.
        beyond, behind = self._suffix[0, 1:], self._suffix[0, self._end[group]]
        place = np.searchsorted(-beyond, -(behind + 1.0 - level) - _NO_MASS)
        place = np.clip(place, np.concatenate(([0], self._end[:-1]))[group], self._end[group] - 1)
        found[some] = self._value[place]
        open_end = np.flatnonzero((place == self._end[group] - 1) & (self._begun[group] >= 0))
        mine = group[open_end]
        left = (1.0 - level[open_end]) / np.maximum(self._suffix[0, place[open_end]] - behind[open_end], _NO_MASS)
        life = -self._life[mine] * np.log(np.clip(left, _NO_MASS, 1.0))
        found[some[open_end]] = np.minimum(self._begun[mine] + life, np.maximum(self._limit[mine], self._begun[mine]))
        return found


def kaplan_meier(seen: Observations, limit: Floats, guess: Floats) -> Curves:
    """The curves of all groups. limit, guess: f64 (G,), the most tokens of an answer, and the mean expected unseen.

    By Efron's redistribution to the right the restricted mean is that of the sample in which every running answer is
    replaced by `beyond` its own length; `blendrun.lengths.estimate` leans on this for its sums over sub-trees.
    """
    groups = len(limit)
    # Of equal lengths the finished come first: an answer still running at t is longer than t.
    order = np.lexsort((~seen.finished, seen.tokens, seen.group))
    group, value, weight = seen.group[order], seen.tokens[order].astype(np.float64), seen.weight[order]
    finished = seen.finished[order]
    end = np.cumsum(np.bincount(group, minlength=groups))
    some = np.flatnonzero(np.diff(end, prepend=0))
    last = end[some] - 1
    mass = _jumps(group, weight, finished, end, last)

    exposure, events = _by_group(group, weight * value, groups), _by_group(group, weight * finished, groups)
    longest = np.zeros(groups)
    longest[some] = value[last]
    life = _life(exposure, events, longest, guess)
    square = value**2
    still = last[~finished[last]]
    begun = np.full(groups, -1.0)
    begun[group[still]] = value[still]
    value[still], square[still] = _tail(value[still], limit[group[still]], life[group[still]])

    moments = np.stack((mass, mass * value, mass * square))
    suffix = np.zeros((3, len(value) + 1))
    suffix[:, :-1] = np.cumsum(moments[:, ::-1], axis=1)[:, ::-1]
    width = float(max(value.max(initial=0.0), limit.max(initial=0.0))) + 1.0
    mean, second = _by_group(group, moments[1], groups), _by_group(group, moments[2], groups)
    total = _by_group(group, weight, groups)
    return Curves(total, mean, second, value, begun, group * width + value, width, end, suffix, limit, life)


def _by_group(group: Groups, values: Floats, groups: int) -> Floats:
    return np.bincount(group, values, groups).astype(np.float64)


def _jumps(group: Groups, weight: Floats, finished: NDArray[np.bool_], end: Groups, last: Groups) -> Floats:
    """Mass of each answer in its group's curve; 0 for a running one, except the group's last, which takes the rest."""
    running = np.cumsum(weight)
    risk = running[end[group] - 1] - running + weight
    # The last answer takes all that is left, whatever rounding says; before it a hazard of 1 is rounding only.
    hazard = np.minimum(np.where(finished, weight / risk, 0.0), 1.0 - 1e-15)
    hazard[last] = 0.0
    stay = np.log1p(-hazard)
    before = np.cumsum(stay) - stay
    first = end[group] - np.bincount(group, minlength=len(end))[group]
    survive = np.exp(before - before[first])
    hazard[last] = 1.0
    return np.asarray(survive * hazard)


def _life(exposure: Floats, events: Floats, longest: Floats, guess: Floats) -> Floats:
    """Mean remaining life beyond the longest answer seen: f64 (G,).

    Tokens decoded for each answer that ended (exact for a constant chance to end), with the guess as one answer more.
    While hardly any has ended that quotient grows with the number of running answers, which proves nothing: answers
    that begin together pass their first tokens together. So one is expected to double at most, or to live as guessed.
    """
    life = np.minimum((exposure + guess) / (events + 1.0), np.maximum(guess, longest))
    return np.asarray(np.maximum(life, 1e-9))


def _tail(begun: Floats, limit: Floats, life: Floats) -> tuple[Floats, Floats]:
    """E[d] and E[d^2] of d = min(begun + exponential life, limit); where begun is at the limit, that."""
    room = np.maximum(limit - begun, 0.0) / life
    first = -life * np.expm1(-room)
    second = 2.0 * life**2 * np.maximum(1.0 - np.exp(-room) * (1.0 + room), 0.0)
    return begun + first, begun**2 + 2.0 * begun * first + second

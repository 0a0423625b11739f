"""What this run's samples and earlier runs say of each kind of request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.lengths.base import LengthSource
from blendrun.lengths.evidence import Recalled, Samples
from blendrun.lengths.prior import prior_moments
from blendrun.lengths.survival import Curves, Floats, Groups, Observations, kaplan_meier
from blendrun.tokens.base import Prompts

# Answers that the prior of a kind counts for. It is off by a factor of ten where answers are one line (prior.py), so
# one answer of the run's own outweighs it.
PRIOR_ANSWERS = 0.5
# Answers that history counts for at most: enough to start well informed, few enough that a run unlike those before it
# (another prompt behind the same endpoint and schema) is seen within its first per cent.
HISTORY_ANSWERS = 32.0
# Answers that must disagree with their priors before kinds without evidence are scaled half of the way after them.
_JOB_ANSWERS = 8.0

_TINY = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Kinds:
    """C kinds of request: prompts of equal `Prompts.cluster`.

    of: i64 (M,), kind of each prompt.
    source: u8 (C,), SAMPLES where this run has seen any answer, HISTORY where earlier runs have, else PRIOR.
    expected: f64 (C, 2), mean of d and of d^2, > 0; what prior, history and samples say together.
    job: f64 (2,), how the answers seen compare to their kinds' priors.
    curves: of samples and history, a group a kind. limit: i32 (C,), most tokens of an answer of the kind.
    """

    of: Groups
    source: NDArray[np.uint8]
    expected: Floats
    job: Floats
    curves: Curves
    limit: NDArray[np.int32]


def learn_kinds(prompts: Prompts, samples: Samples, history: Recalled | None) -> Kinds:
    """Weigh up the evidence on each kind: (n * Kaplan-Meier moments + w * prior) / (n + w).

    n counts this run's samples, and history as at most `HISTORY_ANSWERS` more of them. The prior is scaled as the job's
    answers turned out against theirs; where every request has a bound of its own that is all there is to learn from.
    """
    keys, of = np.unique(prompts.cluster, return_inverse=True)
    limit = np.zeros(len(keys), dtype=np.int32)
    np.maximum.at(limit, of, prompts.bound)
    prior = np.maximum(np.column_stack(prior_moments(limit)), _TINY)
    group = of[samples.prompt]
    seen = Observations(group, samples.tokens, samples.finished, np.ones(len(samples)))
    source, guess = np.full(len(keys), LengthSource.PRIOR, dtype=np.uint8), prior[:, 0].copy()
    if history is not None and len(history):
        kind, row = _matches(keys, history)
        source[kind] = LengthSource.HISTORY
        guess[kind] = history.total[row].sum(axis=1) / np.maximum(history.count[row].sum(axis=1), _TINY)
        seen = _joined(seen, _remembered(kind, row, limit, history))
    source[group] = LengthSource.SAMPLES
    curves = kaplan_meier(seen, limit.astype(np.float64), guess)
    weight, shown = curves.seen[:, None], np.column_stack((curves.mean, curves.square))
    job = ((weight * shown / prior).sum(axis=0) + _JOB_ANSWERS) / (weight.sum() + _JOB_ANSWERS)
    expected = (weight * shown + PRIOR_ANSWERS * prior * job) / (weight + PRIOR_ANSWERS)
    return Kinds(of, source, np.maximum(expected, _TINY), job, curves, limit)


def _matches(keys: NDArray[np.uint64], history: Recalled) -> tuple[Groups, Groups]:
    """Kinds that history knows, and their rows there. keys: u64 (C,), ascending."""
    row = np.minimum(np.searchsorted(history.cluster, keys), len(history) - 1)
    kind = np.flatnonzero((history.cluster[row] == keys) & (history.count[row].sum(axis=1) > 0))
    return kind, row[kind]


def _remembered(kind: Groups, row: Groups, limit: NDArray[np.int32], history: Recalled) -> Observations:
    """History as finished answers: two for each octave, a deviation to each side of its mean, to keep both moments."""
    count = history.count[row]
    scale = np.minimum(1.0, HISTORY_ANSWERS / count.sum(axis=1))
    place, octave = np.nonzero(count > 0)
    number = count[place, octave]
    mean = history.total[row][place, octave] / number
    spread = np.sqrt(np.maximum(history.square[row][place, octave] / number - mean**2, 0.0))
    group = np.tile(kind[place], 2)
    tokens = np.clip(np.concatenate((mean - spread, mean + spread)), 0.0, limit[group])
    return Observations(group, tokens, np.ones(len(group), dtype=bool), np.tile(0.5 * number * scale[place], 2))


def _joined(one: Observations, other: Observations) -> Observations:
    return Observations(
        np.concatenate((one.group, other.group)),
        np.concatenate((one.tokens, other.tokens)),
        np.concatenate((one.finished, other.finished)),
        np.concatenate((one.weight, other.weight)),
    )

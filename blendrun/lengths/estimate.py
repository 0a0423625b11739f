"""From everything that is known to the Lengths of a job."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blendrun.lengths.base import Lengths, LengthSource
from blendrun.lengths.evidence import Recalled, Samples
from blendrun.lengths.kinds import PRIOR_ANSWERS, Kinds, learn_kinds
from blendrun.lengths.prior import prior_moments
from blendrun.lengths.spread import Spread
from blendrun.lengths.subtrees import SHRINKAGE, subtree_factors
from blendrun.lengths.survival import Floats
from blendrun.names import LengthMode
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree


def estimate(
    prompts: Prompts,
    tree: PrefixTree,
    *,
    mode: LengthMode = LengthMode.AUTO,
    samples: Samples | None = None,
    history: Recalled | None = None,
    shrinkage: float = SHRINKAGE,
) -> Lengths:
    """What is expected of each of M prompts' answers (docs/paper.md#lengths-are-never-waited-for).

    The best source wins: a known length; the oracle if `mode` asks for it; this run's samples; history; the prior of
    the bound. `source` says for each prompt which it was: SAMPLES if any answer of its kind (`Prompts.cluster`) was
    seen in this run, though the samples may be few and history still count with them.

    tree: of exactly these prompts. samples: answers of this run so far; tokens within their prompt's bound.
    shrinkage: samples that the estimate above a sub-tree counts for (`subtree_factors`).
    """
    moments = np.column_stack(prior_moments(prompts.bound))
    source = np.full(len(prompts), LengthSource.PRIOR, dtype=np.uint8)
    if mode is LengthMode.PRIOR:
        return _bounded(prompts, moments, source, None)
    kinds = None
    if len(prompts) and (samples or history):
        seen = _NO_SAMPLES if samples is None else samples
        kinds = learn_kinds(prompts, seen, history)
        moments, source = _learned(prompts, tree, seen, kinds, shrinkage)
    if mode is LengthMode.REFERENCE:
        _set_facts(moments, source, prompts, prompts.reference >= 0, LengthSource.REFERENCE)
    _set_facts(moments, source, prompts, prompts.known & (prompts.reference >= 0), LengthSource.KNOWN)
    return _bounded(prompts, moments, source, kinds)


def length_report(lengths: Lengths) -> dict[str, int]:
    """Prompts by where their length came from, best source first; sources of no prompt are left out."""
    count = np.bincount(lengths.source, minlength=len(LengthSource))
    return {source.name.lower(): int(count[source]) for source in LengthSource if count[source]}


_NO_SAMPLES = Samples(np.zeros(0, np.int64), np.zeros(0, np.float64), np.zeros(0, np.bool_))


def _learned(
    prompts: Prompts, tree: PrefixTree, samples: Samples, kinds: Kinds, shrinkage: float
) -> tuple[Floats, NDArray[np.uint8]]:
    """Moments and source of each prompt: f64 (M, 2), u8 (M,).

    prior -> history of the kind -> samples of the kind -> samples of the sub-tree -> the prompt's own answers. Down the
    tree all kinds are judged together, each answer against what its kind lets expect: two questions on one long passage
    may differ in kind, and still both be long.
    """
    source = kinds.source[kinds.of]
    unseen = np.column_stack(prior_moments(prompts.bound)) * kinds.job
    moments = np.where((source == LengthSource.PRIOR)[:, None], unseen, kinds.expected[kinds.of])
    if len(samples):
        kind, position = kinds.of[samples.prompt], tree.position
        ratio = _completed(samples, kinds, np.ones((len(samples), 2))) / kinds.expected[kind]
        factor = subtree_factors(tree, position[samples.prompt], ratio, shrinkage)[position]
        moments *= factor
        _count_own_answers(moments, prompts, samples, _completed(samples, kinds, factor[samples.prompt]))
    return moments, source


def _completed(samples: Samples, kinds: Kinds, factor: Floats) -> Floats:
    """d and d^2 of each sample, a running one as its kind lets expect given that it has come this far: f64 (S, 2).

    factor: f64 (S, 2), how much longer than their kind the answers around each sample are. The kind's curve is
    stretched by it along the axis of tokens (an accelerated failure time).
    """
    stretch = np.maximum(factor[:, 0], 1e-9)
    mean, square = kinds.curves.beyond(kinds.of[samples.prompt], samples.tokens / stretch)
    running = np.column_stack((mean * stretch, square * stretch**2))
    finished = np.column_stack((samples.tokens, samples.tokens**2))
    return np.where(samples.finished[:, None], finished, running)


def _count_own_answers(moments: Floats, prompts: Prompts, samples: Samples, completed: Floats) -> None:
    """Put the answers that a prompt already has in the place of what was expected of as many of its choices."""
    own = np.bincount(samples.prompt, minlength=len(prompts))
    some = np.flatnonzero(own)
    seen = own[some][:, None]
    unseen = np.maximum(prompts.choices[some][:, None] - seen, 0)
    bound = prompts.bound[samples.prompt].astype(np.float64)
    for column, most in enumerate((bound, bound**2)):
        total = np.bincount(samples.prompt, np.minimum(completed[:, column], most), len(prompts))[some]
        moments[some, column] = (total + unseen[:, 0] * moments[some, column]) / (seen + unseen)[:, 0]


def _set_facts(
    moments: Floats, source: NDArray[np.uint8], prompts: Prompts, where: NDArray[np.bool_], name: LengthSource
) -> None:
    tokens = prompts.reference[where].astype(np.float64)
    moments[where] = np.column_stack((tokens, tokens**2))
    source[where] = name


def _bounded(prompts: Prompts, moments: Floats, source: NDArray[np.uint8], kinds: Kinds | None) -> Lengths:
    """0 <= mean <= bound, and mean^2 <= square <= mean * bound as it must be of numbers between 0 and the bound."""
    mean = np.clip(moments[:, 0], 0.0, prompts.bound)
    square = np.clip(moments[:, 1], mean**2, np.maximum(mean * prompts.bound, mean**2))
    return Lengths(mean, square, prompts.bound, source, _spread(prompts, mean, kinds))


def _spread(prompts: Prompts, mean: Floats, kinds: Kinds | None) -> Spread:
    """What was seen of each kind, or only the prior of each bound, stretched to the means: f64 (M,)."""
    if kinds is None:
        usual = prior_moments(prompts.bound)[0]
        scale = np.divide(mean, usual, out=np.zeros_like(mean), where=usual > 0)
        return Spread(np.arange(len(mean)), scale, prompts.bound, prompts.bound)
    of = kinds.of
    usual = kinds.expected[of, 0]
    return Spread(of, mean / usual, prompts.bound, kinds.limit, kinds.curves, PRIOR_ANSWERS, float(kinds.job[0]))

"""What the answers of a run teach about those to come: lengths re-estimated, and what history is to remember."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from blendrun.lengths.base import Lengths, LengthSource
from blendrun.lengths.estimate import estimate
from blendrun.lengths.evidence import Recalled, Samples
from blendrun.names import LengthMode
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree

# Of the expected tokens that are left: a smaller change moves nothing worth planning for.
_WORTH_CHANGE = 0.05
# Prompts of one kind to feed first, at most, and of all its prompts at most this share.
_SAMPLE, _SAMPLE_SHARE = 24, 0.1
# The golden ratio: its multiples, taken modulo 1, are spread evenly however many of them there are.
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(slots=True)
class Learner:
    """Lengths of one run. prompt, tokens, finished: answers so far, one entry for each choice."""

    prompts: Prompts
    tree: PrefixTree
    mode: LengthMode
    history: Recalled | None
    lengths: Lengths
    prompt: list[int] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    finished: list[bool] = field(default_factory=list)

    @property
    def needed(self) -> bool:
        """Whether there is anything to learn: lengths that are known stay as they are."""
        return not bool((self.lengths.source <= LengthSource.REFERENCE).all())

    def ended(self, prompt: int, output_tokens: int, *, finished: bool = True) -> None:
        """Note an answer. output_tokens: of all its choices. finished: by itself or at its bound."""
        choices = int(self.prompts.choices[prompt])
        self.prompt += [prompt] * choices
        self.tokens += [output_tokens / choices] * choices
        self.finished += [finished] * choices

    def samples(self, running: dict[int, int]) -> Samples:
        """All answers so far. running: prompts being answered and the tokens that they have (each choice)."""
        alive = [prompt for prompt in running for _ in range(int(self.prompts.choices[prompt]))]
        prompt = np.array([*self.prompt, *alive], dtype=np.int64)
        tokens = np.array([*self.tokens, *(running[each] for each in alive)], dtype=np.float64)
        finished = np.array([*self.finished, *(False for _ in alive)], dtype=np.bool_)
        return Samples(prompt, np.minimum(tokens, self.prompts.bound[prompt]), finished)

    def learn_running(self, running: dict[int, int]) -> Lengths:
        """Estimate again, for those that run, too. running: as in `samples`."""
        self.lengths = self._estimated(self.samples(running))
        return self.lengths

    def learn(self, samples: Samples) -> Lengths | None:
        """Estimate again; None where it makes no difference worth a new plan."""
        found = self._estimated(samples)
        unseen = np.ones(len(self.prompts), dtype=np.bool_)
        unseen[samples.prompt] = False
        moved = float(np.abs(found.mean - self.lengths.mean)[unseen].sum())
        if moved <= _WORTH_CHANGE * float(self.lengths.mean[unseen].sum()):
            return None
        self.lengths = found
        return found

    def _estimated(self, samples: Samples) -> Lengths:
        return estimate(self.prompts, self.tree, mode=self.mode, samples=samples, history=self.history)


def sample_first(prompts: Prompts, tree: PrefixTree, lengths: Lengths) -> NDArray[np.int64]:
    """Prompts whose answers tell most, to be fed first: i64.

    Of each kind of which nothing was ever seen, a few that stand far apart in the tree, so that its sub-trees are all
    heard (docs/paper.md#lengths-are-never-waited-for); the first of them are as far apart as all are. Without them a
    plan's own first requests are the sample: neighbours, whose answers say little of the others'.
    """
    guessed = (lengths.source == LengthSource.PRIOR)[tree.prompt]
    kinds = prompts.cluster[tree.prompt][guessed]
    places = np.flatnonzero(guessed)
    found: list[NDArray[np.int64]] = []
    for kind in np.unique(kinds):
        own = places[kinds == kind]
        count = min(_SAMPLE, int(_SAMPLE_SHARE * len(own)))
        if count:
            spread = np.argsort(np.argsort(np.arange(count) * _GOLDEN % 1.0))
            found.append(own[(spread * len(own) + len(own) // 2) // count])
    if not found:
        return np.zeros(0, dtype=np.int64)
    return tree.prompt[np.concatenate(found)]

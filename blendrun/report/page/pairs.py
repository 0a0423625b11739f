"""Sample requests of several subjects: a prompt once, with the answers that each run gave beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from blendrun.report.page.facts import Facts


@dataclass(frozen=True, slots=True)
class Answers:
    """A prompt, as of a `Sample`, and its answers: (name of the run, text, whether it failed)."""

    custom_id: str
    why: str
    prompt: tuple[tuple[str, str], ...]
    answers: tuple[tuple[str, str, bool], ...]


def side_by_side(subjects: Sequence[Facts]) -> list[Answers]:
    """The samples of all subjects; equal prompts of the same name once."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], Answers] = {}
    for subject in subjects:
        name = subject.name if len(subjects) > 1 else "answer"
        for sample in subject.samples:
            key = sample.custom_id, sample.prompt
            mine = (name, sample.answer, sample.failed)
            before = found.get(key)
            others = before.answers if before is not None else ()
            why = before.why if before is not None else sample.why
            found[key] = Answers(sample.custom_id, why, sample.prompt, (*others, mine))
    return [_told_once(each) for each in found.values()]


def _told_once(pair: Answers) -> Answers:
    """Answers that are alike need no second reading."""
    told = {(text, failed) for _, text, failed in pair.answers}
    if len(pair.answers) < 2 or len(told) > 1:
        return pair
    return replace(pair, answers=(("the same answer in all runs", *told.pop()),))

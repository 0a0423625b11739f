"""What a job brings that this run does not heed, told once, before the engine starts."""

from __future__ import annotations

from collections.abc import Iterator

from blendrun.endpoints.adapters import other_models
from blendrun.jobs.job import Job
from blendrun.planner.findings import tools_not_shown
from blendrun.runner.settings import RunSettings
from blendrun.text import plural

# Fields without effect that are named, a warning each.
_FIELDS_TOLD = 10


def note_of_drawn(job: Job, settings: RunSettings) -> str | None:
    """Why equal requests are asked each, and nothing is kept: answers are drawn. None where that is no question."""
    drawn, found = job.drawn, []
    if drawn.equal and settings.same is not None and settings.same.copies:
        found.append(f"{plural(drawn.equal, 'line asks', 'lines ask')} what another asks, and each is asked")
    if drawn.lines and settings.cache is not None:
        found.append(f"none of {drawn.lines:,} is kept")
    if not found:
        return None
    return f'answers are drawn: {", ".join(found)}; --temperature 0 (lines: "temperature": 0) or --dedupe on'


def warnings_of(job: Job, settings: RunSettings) -> Iterator[str]:
    """Yields a sentence for each: names of models that do not decide, fields without effect, tools not shown."""
    # Where adapters are declared, a name that is not served is an error line instead; a server may have some.
    rules = settings.rules
    known = (*(rules.base or ()), *(rules.adapters or ()))
    judged = rules.adapters and rules.unknown is not None
    if not judged and (sentence := other_models(job.models, settings.model, known)):
        yield sentence
    for name, count in job.passed_over.most_common(_FIELDS_TOLD):
        yield f"{plural(count, 'line has', 'lines have')} `{name}`, which has no effect here"
    if (more := len(job.passed_over) - _FIELDS_TOLD) > 0:
        yield f"{more:,} more fields of lines have no effect here"
    if job.with_tools and settings.shows_tools is False:
        yield tools_not_shown(job.with_tools, settings.model)

"""Put a page together: figures and tables in HTML, pictures drawn by Vega, everything in the one file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from blendrun.errors import OutputUnavailableError, UsageError
from blendrun.files import write_atomically
from blendrun.installed import install_command
from blendrun.models.resolve import cache_folder
from blendrun.report.page import facts
from blendrun.report.page.cards import comparison, two_of_one_job
from blendrun.report.page.charts.base import Bounds, Chart
from blendrun.report.page.charts.bounds import bounds_of
from blendrun.report.page.charts.registry import SECTIONS, Section
from blendrun.report.page.pairs import side_by_side
from blendrun.report.page.subject import Subject
from blendrun.store.guard import Target, head_of
from blendrun.version import __version__


def make_page(subjects: Sequence[Subject], target: Target) -> None:
    """Write the page of `subjects`, side by side. Raises UsageError, OutputUnavailableError."""
    target.write(page_html(subjects).encode(errors="replace"))


def is_page(path: Path) -> bool:
    """Whether a file is a page that was made here."""
    return b'<meta name="generator" content="blendrun' in head_of(path)


def page_html(subjects: Sequence[Subject]) -> str:
    """The page as text."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    specs: dict[str, Any] = {}
    sections = []
    bounds = bounds_of(subjects)
    for section in SECTIONS:
        columns = []
        for number, (name, chart) in enumerate(_charts(section, subjects, bounds)):
            if chart is not None:
                specs[f"{chart.key}-{number}"] = chart.spec
                columns.append((f"{chart.key}-{number}", name, chart))
        if columns:
            key = columns[0][2].key
            sections.append({"key": key, "heading": section.heading, "sentence": section.sentence, "columns": columns})
    environment = ImmutableSandboxedEnvironment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["parts"] = code_parts
    template = environment.from_string(_asset("page.html.j2"))
    found = [facts.of(subject) for subject in subjects]
    return template.render(
        title=_title(subjects, found),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        subjects=found,
        comparison=comparison(subjects),
        one_job=two_of_one_job(subjects),
        troubles=_troubles(found),
        samples=side_by_side(found),
        has_samples=any(subject.samples for subject in found),
        sections=sections,
        ran=any(subject.ran for subject in subjects),
        style=_asset("page.css"),
        script=_script(),
        specs=_inline_json(specs),
    )


def code_parts(text: str) -> list[str]:
    """A text cut at its backticks: every second part is code. Whole where they are not in pairs."""
    parts = text.split("`")
    return parts if len(parts) % 2 else [text]


def _charts(section: Section, subjects: Sequence[Subject], bounds: Bounds) -> Iterator[tuple[str, Chart | None]]:
    """A picture for each subject, with its name; of two runs of one job, one picture where both lie over each other."""
    if section.both is not None and two_of_one_job(subjects):
        one, other = subjects
        chart = section.both(one, other, bounds)
        if chart is not None:
            yield "", chart
            return
    for subject in subjects:
        yield subject.name, section.draw(subject, bounds)


def _title(subjects: Sequence[Subject], found: Sequence[facts.Facts]) -> str:
    """A sentence of one subject; of several, what they are."""
    if len(found) == 1:
        return found[0].title
    what = "Runs" if all(subject.ran for subject in subjects) else "Runs and plans"
    if two_of_one_job(subjects):
        what = "Two runs of one job"
    return f"{what}: {', '.join(subject.name for subject in subjects)}"


def _troubles(found: Sequence[facts.Facts]) -> list[dict[str, Any]]:
    """What is wrong, kind by kind, and of each kind the subjects that have it."""
    kinds: dict[str, dict[str, Any]] = {}
    for subject in found:
        for trouble in subject.troubles:
            kind = kinds.setdefault(
                trouble.key, {"key": trouble.key, "heading": trouble.heading, "look": trouble.look, "columns": []}
            )
            kind["columns"].append((subject.name, trouble))
    return list(kinds.values())


def _inline_json(value: Any) -> str:
    """JSON that may stand in a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _asset(name: str) -> str:
    return files("blendrun.report.page").joinpath("assets", name).read_text(encoding="utf-8")


def refuse_without_scripts() -> None:
    """Raises UsageError where the package that the page's charts come in is not installed."""
    if find_spec("vl_convert") is None:
        raise UsageError(f"a page is drawn with vl-convert: {install_command('report')}")


@cache
def _script() -> str:
    """Vega, Vega-Lite, Vega-Embed and the page's own lines, one script.

    Kept in the cache folder: to put it together takes as long as all the rest of a page.
    """
    refuse_without_scripts()
    import vl_convert

    source = _asset("page.js")
    kept = cache_folder() / "page" / f"{_digest(version('vl-convert-python'), source)}.js"
    with suppress(OSError, UnicodeError):
        script, _, digest = kept.read_bytes().decode().rpartition("\n//")
        # It is as it was written.
        if digest == _digest(script):
            return script
    # Text of a script must not end its element.
    made: str = vl_convert.javascript_bundle(source).replace("</script", "<\\/script").replace("<!--", "<\\!--")
    with suppress(OSError, OutputUnavailableError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, f"{made}\n//{_digest(made)}".encode())
    return made


def _digest(*texts: str) -> str:
    return blake2b("\0".join(texts).encode(), digest_size=16).hexdigest()

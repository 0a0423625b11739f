"""Put a page together: figures and tables in HTML, pictures drawn by Vega, everything in the one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from blendrun.errors import UsageError
from blendrun.report.page import facts
from blendrun.report.page.charts.registry import SECTIONS
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
    for section in SECTIONS:
        columns = []
        key = ""
        for number, subject in enumerate(subjects):
            if (chart := section.draw(subject)) is not None:
                key = chart.key
                specs[f"{key}-{number}"] = chart.spec
                columns.append((f"{key}-{number}", subject.name, chart))
        if columns:
            sections.append({"key": key, "heading": section.heading, "sentence": section.sentence, "columns": columns})
    environment = ImmutableSandboxedEnvironment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_asset("page.html.j2"))
    return template.render(
        title=_title(subjects),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        subjects=[facts.of(subject) for subject in subjects],
        comparison=facts.comparison(subjects),
        sections=sections,
        ran=any(subject.ran for subject in subjects),
        style=_asset("page.css"),
        script=_script(),
        specs=_inline_json(specs),
    )


def _title(subjects: Sequence[Subject]) -> str:
    what = "run" if any(subject.ran for subject in subjects) else "plan"
    return f"blendrun {what}: {', '.join(subject.name for subject in subjects)}"


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
        raise UsageError("a page is drawn with vl-convert: pip install vl-convert-python")


@cache
def _script() -> str:
    """Vega, Vega-Lite, Vega-Embed and the page's own lines, one script."""
    refuse_without_scripts()
    import vl_convert

    # Text of a script must not end its element.
    return vl_convert.javascript_bundle(_asset("page.js")).replace("</script", "<\\/script").replace("<!--", "<\\!--")

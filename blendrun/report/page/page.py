"""Put a page together: figures and tables in HTML, pictures drawn by Vega, everything in the one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from blendrun import __version__
from blendrun.files import write_atomically
from blendrun.report.page import facts
from blendrun.report.page.charts.registry import charts_of
from blendrun.report.page.subject import Subject

# Sections in reading order: key of the charts, heading, one sentence for those who see such a picture the first time.
_SECTIONS = (
    (
        "timeline",
        "Time line",
        "Prefill computes prompts, decode makes answers. Shift and the wheel zoom, dragging moves.",
    ),
    ("occupancy", "KV pool and prefix cache", "How full the pool was, and which part of the prompts it already held."),
    (
        "icicle",
        "Prefix tree",
        "A block is a prefix, as wide as the requests that share it; what hangs below shares it. Dark blocks are heavy "
        "in memory (long answers), light ones in compute (long prompts).",
    ),
    (
        "strip",
        "What ran when",
        "Each row is a part of the prefix tree; the darker, the more of its requests ran.",
    ),
    ("lengths", "Lengths of answers", "On the dashed line an answer was as long as expected."),
    ("orders", "Orders compared", "Simulated by the cost model before the run, the measured time beside it."),
    ("densities", "Requests by density", "Left of 1 a request is heavy in memory, right of it in compute."),
)


def make_page(subjects: Sequence[Subject], path: Path) -> None:
    """Write the page of `subjects`, side by side. Raises OutputUnavailableError."""
    write_atomically(path, page_html(subjects).encode(errors="replace"))


def page_html(subjects: Sequence[Subject]) -> str:
    """The page as text."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    drawn = [charts_of(subject) for subject in subjects]
    specs: dict[str, Any] = {}
    sections = []
    for key, heading, sentence in _SECTIONS:
        columns = []
        for number, (subject, found) in enumerate(zip(subjects, drawn, strict=True)):
            if key in found:
                specs[f"{key}-{number}"] = found[key].spec
                columns.append((f"{key}-{number}", subject.name, found[key]))
        if columns:
            sections.append({"key": key, "heading": heading, "sentence": sentence, "columns": columns})
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


@cache
def _script() -> str:
    """Vega, Vega-Lite, Vega-Embed and the page's own lines, one script."""
    import vl_convert

    # Text of a script must not end its element.
    return vl_convert.javascript_bundle(_asset("page.js")).replace("</script", "<\\/script").replace("<!--", "<\\!--")

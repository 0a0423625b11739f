"""Write the table of request fields into docs/files.md: python scripts/make_field_table.py FILE (--check: compare)"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from blendrun.endpoints.apis.registry import APIS
from blendrun.endpoints.effects import BODIES, PLACES, Effect, Field
from blendrun.endpoints.fields import REFUSED_FIELDS

_BEGIN, _END = "<!-- fields: made by `make docs` -->\n", "<!-- end of fields -->"
_CHAT, _COMPLETIONS = "/v1/chat/completions", "/v1/completions"
# What decodes nothing has tables of its own, with much in common.
_READING = ("/v1/embeddings", "/v1/classify", "/v1/score", "/v1/rerank")
_WORDS = {
    Effect.KEPT: "works",
    Effect.DONE: "done as",
    Effect.IDLE: "passed over",
    Effect.NOTED: "passed over, counted in a warning",
    Effect.REFUSED: "error",
    Effect.FORBIDDEN: "always an error",
}


def table() -> str:
    """The part of the page between the marks."""
    lines = ["", "| place | field | | |", "|---|---|---|---|"]
    for place, fields in _places():
        lines += _rows(place, fields)
    return "\n".join(lines) + "\n\n"


def _places() -> Iterator[tuple[str, dict[str, Field]]]:
    chat, completions = BODIES[_CHAT], BODIES[_COMPLETIONS]
    both = {name: field for name, field in chat.items() if completions.get(name) == field}
    yield "both", both
    yield "chat", {name: field for name, field in chat.items() if name not in both}
    yield "completions", {name: field for name, field in completions.items() if name not in both}
    for url in APIS:
        yield f"`{url}`", {name: field for name, field in BODIES[url].items() if name not in REFUSED_FIELDS}
    tables = {url: BODIES[url] for url in _READING}
    common = {
        name: field
        for name, field in tables[_READING[0]].items()
        if all(table.get(name) == field for table in tables.values())
    }
    yield ", ".join(url.rpartition("/")[2] for url in _READING), common
    for url, table in tables.items():
        yield url.rpartition("/")[2], {name: field for name, field in table.items() if common.get(name) != field}
    told: list[dict[str, Field]] = []
    for place, fields in PLACES.items():
        if not any(fields is each for each in told):
            told.append(fields)
            path, _, of = place.partition(" ")
            yield f"`{path}` {of}".strip(), fields


def _rows(place: str, fields: dict[str, Field]) -> Iterator[str]:
    """One for all that work, and one for each reason."""
    groups: dict[tuple[Effect, str, str], list[str]] = {}
    for name, field in fields.items():
        harmless = ", ".join(f"`{_json(value)}`" for value in field.harmless)
        groups.setdefault((field.effect, field.note, harmless), []).append(f"`{name}`")
    for (effect, note, harmless), names in groups.items():
        what = f"{_WORDS[effect]} {note}" if effect is Effect.DONE else _WORDS[effect]
        why = "" if effect is Effect.DONE else note
        if harmless and effect is Effect.REFUSED:
            why = f"{why}; {harmless} passes" if why else f"{harmless} passes"
        yield f"| {place} | {', '.join(names)} | {what} | {why} |"
        place = ""


def _json(value: object) -> str:
    return json.dumps(value)


def page(text: str) -> str:
    """`text` with the table of now."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}{table()}{_END}{after}"


def main() -> None:
    path = Path(sys.argv[1])
    text = path.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        if page(text) != text:
            sys.exit(f"{path} has not the fields of the code: run make docs")
        return
    path.write_text(page(text), encoding="utf-8")


if __name__ == "__main__":
    main()

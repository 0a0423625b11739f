"""Write the CLI reference from the code: python scripts/make_cli_reference.py docs/cli.md (--check: only compare)

Lists in place of columns, so that a phone can show it; `run-order` is the anchor of `blendrun run --order`.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from blendrun.cli.app import app
from blendrun.cli.help import Entry, command_panels, epilog_of, option_panels, usage_of

_HEAD = """# Command line

All commands and options; `blendrun COMMAND --help` prints the same. The [glossary](glossary.md) explains its terms,
[operations](operations.md) the exit codes. Options of `run` and `plan` may also stand in a YAML file (`--config`).
"""
_TAIL = "<!-- Written by scripts/make_cli_reference.py (make docs) from the code; a test compares. -->\n"
# Every command has these.
_HELP = ("-h", "--help")


def contexts(command: Any = None, parent: Any = None) -> Iterator[Any]:
    """A context for the program, then for each command; those of a group after the group."""
    command = command or typer.main.get_command(app)
    context = command.context_class(
        command, info_name=command.name if parent is not None else "blendrun", parent=parent, **command.context_settings
    )
    yield context
    listed = (
        [entry.names[0] for _, entries in command_panels(command, context) for entry in entries]
        if _group(command)
        else []
    )
    for name in listed:
        yield from contexts(command.commands[name], context)


def reference() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(_section(context) for context in contexts()), _TAIL])


def _section(context: Any) -> str:
    command, words = context.command, context.command_path
    parts = [f"## `{words}`\n", f"```text\n{usage_of(command, context)}\n```\n", _paragraphs(command.help or "")]
    if _group(command):
        parts += [
            _panel(title, [_command_line(words, each) for each in entries])
            for title, entries in command_panels(command, context)
        ]
    for title, entries in option_panels(command, context):
        lines = [_option_line(words, each) for each in entries if each.names != _HELP]
        parts += [_panel(title, lines)] if lines else []
    epilog = epilog_of(context)
    if epilog.terms:
        parts.append(_panel("Terms", [f"- `{term}`: {meaning}" for term, meaning in epilog.terms]))
    parts.append("**Examples**\n\n```bash\n" + "\n".join(epilog.examples) + "\n```\n")
    return "\n".join(parts)


def _panel(title: str, lines: list[str]) -> str:
    return f"**{title}**\n\n" + "\n".join(lines) + "\n"


def _command_line(words: str, entry: Entry) -> str:
    name = f"{words} {entry.names[0]}"
    return _item(f"[`{entry.names[0]}`](#{name.replace(' ', '-')}): {_text(entry.text)}")


def _option_line(words: str, entry: Entry) -> str:
    long = next((name for name in entry.names if name.startswith("--")), entry.value or "")
    anchor = "-".join([*words.split()[1:], long.lstrip("-").rstrip(".").lower()])
    default = f" *{_text(entry.extra)}*" if entry.extra else ""
    return _item(f'<a id="{anchor}"></a>`{entry.term}`: {_text(entry.text)}{default}')


def _paragraphs(text: str) -> str:
    return "\n\n".join(textwrap.fill(_text(part), 140) for part in text.strip().split("\n\n")) + "\n"


def _text(text: str) -> str:
    """Help as Markdown: options, fields and file names as code, whose dashes and brackets stay as they are."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"<[a-z ]+>[\w./]*[\w/]|--[a-z][\w-]*|\w*[a-z]_\w+", r"`\g<0>`", part) for part in parts[::2]]
    return "`".join(parts)


def _item(text: str) -> str:
    return textwrap.fill(
        text, 140, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _group(command: Any) -> bool:
    return hasattr(command, "commands")


def main() -> None:
    path = Path(sys.argv[1])
    if "--check" in sys.argv:
        if path.read_text(encoding="utf-8") != reference():
            sys.exit(f"{path} is not what the code says: run make docs")
        return
    path.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()

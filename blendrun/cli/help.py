"""What `--help` prints: options by panel, values by names that people know, examples at the end.

Plain text: importing rich takes longer than all else that help does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from blendrun.cli.epilogs import DOCS, EXAMPLES, TERMS, Epilog
from blendrun.cli.panels import OTHERS, CommandPanel, Panel

# Wider terms stand on a line of their own, so that their texts keep room at 80 columns.
_WIDEST_TERM = 26


@dataclass(frozen=True, slots=True)
class Entry:
    """One option, argument or command. names: as typed, the short form first; empty for arguments. value: what is to be
    put after it, None where it takes none. extra: "default: …" or "required", or empty.
    """

    names: tuple[str, ...]
    value: str | None
    text: str
    extra: str = ""

    @property
    def term(self) -> str:
        return " ".join(filter(None, (", ".join(self.names), self.value)))

    @property
    def whole_text(self) -> str:
        return f"{self.text}  [{self.extra}]" if self.extra else self.text


def option_panels(command: Any, context: Any) -> list[tuple[str, list[Entry]]]:
    """Arguments of a command, then its options by panel, in the order of `Panel`."""
    found: dict[str, list[Entry]] = {"Arguments": [], **{panel.value: [] for panel in Panel}, OTHERS: []}
    for parameter in command.get_params(context):
        entry = _entry(parameter, context)
        if entry is not None:
            panel = "Arguments" if _is_argument(parameter) else _panel(parameter, OTHERS)
            found.setdefault(panel, []).append(entry)
    return [(title, entries) for title, entries in found.items() if entries]


def command_panels(group: Any, context: Any) -> list[tuple[str, list[Entry]]]:
    """Commands of a group by panel, in the order of `CommandPanel`; those without one under "Commands"."""
    found: dict[str, list[Entry]] = {**{panel.value: [] for panel in CommandPanel}, "Commands": []}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            found.setdefault(_panel(command, "Commands"), []).append(Entry((name,), None, first_sentence(command.help)))
    return [(title, entries) for title, entries in found.items() if entries]


def first_sentence(text: str | None) -> str:
    """The first sentence of a help text, on one line, without the colon and what follows it."""
    paragraph = " ".join((text or "").strip().partition("\n\n")[0].split())
    return re.split(r"(?<=[.])\s", paragraph)[0]


def usage_of(command: Any, context: Any) -> str:
    """Such as `blendrun run [OPTIONS] JOBS...`."""
    pieces = [_argument_name(each) for each in command.get_params(context) if _is_argument(each)]
    if hasattr(command, "commands"):
        pieces.append("COMMAND [ARGUMENTS]")
    return " ".join([context.command_path, "[OPTIONS]", *pieces])


def epilog_of(context: Any) -> Epilog:
    """Examples and terms of a command, by its words after `blendrun`."""
    words = context.command_path.partition(" ")[2]
    return Epilog(EXAMPLES.get(words, ()), TERMS.get(words, ()))


def write_help(command: Any, context: Any, formatter: Any) -> None:
    """The whole of `--help`, in at most the formatter's width where words allow."""
    formatter.write(f"Usage: {usage_of(command, context)}\n")
    formatter.write_paragraph()
    with formatter.indentation():
        formatter.write_text(command.help or "")
    panels = command_panels(command, context) if hasattr(command, "commands") else []
    for title, entries in (*panels, *option_panels(command, context)):
        with formatter.section(title):
            formatter.write_dl([(each.term, each.whole_text) for each in entries], col_max=_WIDEST_TERM)
    _write_epilog(epilog_of(context), formatter)


def _write_epilog(epilog: Epilog, formatter: Any) -> None:
    if epilog.terms:
        with formatter.section("Terms"):
            formatter.write_dl(list(epilog.terms), col_max=_WIDEST_TERM)
    # Commands as they are to be typed: never wrapped.
    if epilog.examples:
        formatter.write("\nExamples:\n" + "".join(f"  {example}\n" for example in epilog.examples))
    formatter.write(f"\n{DOCS}\n")


def _entry(parameter: Any, context: Any) -> Entry | None:
    """None for what is hidden."""
    record = parameter.get_help_record(context)
    # Older versions have no record for an argument without help.
    if record is None or getattr(parameter, "hidden", False):
        return None
    text, extra = _split(record[1])
    if _is_argument(parameter):
        return Entry((), _argument_name(parameter), text, extra)
    names = _short_first((*parameter.opts, *parameter.secondary_opts))
    return Entry(names, None if parameter.is_flag else _value_name(record[0]), text, extra)


def _short_first(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: name.startswith("--")))


def _value_name(shown: str) -> str:
    """Of `-m, --model MODEL` or `--order <given|sorted>` what follows the names."""
    return shown.rpartition(" ")[2].strip("<>")


def _split(text: str) -> tuple[str, str]:
    """A help text, and of what typer appends ("  [default: 3; x>=1]") the part that helps: errors say the range."""
    before, appended, extra = text.rpartition("  [")
    if not appended or not extra.endswith("]"):
        return text, ""
    parts = extra.removesuffix("]").split("; ")
    return before, "; ".join(part for part in parts if part == "required" or part.startswith("default: "))


def _argument_name(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    several = f"{name.rstrip('.')}..." if parameter.nargs != 1 else name
    return several if parameter.required else f"[{several}]"


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _panel(owner: Any, otherwise: str) -> str:
    """typer has a placeholder where none is named."""
    panel = getattr(owner, "rich_help_panel", None)
    return str(panel) if isinstance(panel, str) and panel else otherwise

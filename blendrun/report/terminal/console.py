"""Tables and sentences on a stream, in colours where that is a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from io import StringIO
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment

from blendrun.text import printable

_LOG_WIDTH = 120
_BLANKS = re.compile(r"[ \t]+$", re.MULTILINE)


class Shown:
    """What is drawn, with all control characters that come from others written out; rich's own stay."""

    def __init__(self, part: RenderableType) -> None:
        self._part = part

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._part, options):
            yield segment if segment.control else Segment(printable(segment.text, lines=True), segment.style)


def print_parts(parts: Iterable[RenderableType], stream: TextIO, *, log_width: int = _LOG_WIDTH) -> None:
    """Write `parts` one below the other; a sentence is never broken. log_width: characters where nobody says how wide.

    Raises OSError where the stream is a closed pipe: rich would end the process.
    """
    terminal = stream.isatty()
    text = StringIO()
    width = None if terminal else log_width
    console = Console(file=text, force_terminal=terminal, width=width, highlight=False, markup=False, emoji=False)
    for part in parts:
        console.print(printable(part) if isinstance(part, str) else Shown(part), soft_wrap=isinstance(part, str))
    # Blanks up to the width are of no use in a file, and in the way of a comparison.
    stream.write(text.getvalue() if terminal else _BLANKS.sub("", text.getvalue()))
    stream.flush()

"""Failed lines by kind: one sentence for thousands of like errors, never one for each."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import msgspec

from blendrun.errors import UsageError

# Characters of a message that are kept.
_LONGEST_MESSAGE = 240
# Kinds told apart; what comes after them is counted by its code alone. Kinds shown, one line each.
_MOST_KINDS = 200
SHOWN_KINDS = 10
_OTHER = "other messages"
# What differs between like errors: what is quoted, and numbers (with their signs, points, commas and exponents).
# A quote that opens inside a word is an apostrophe.
_VARYING = re.compile(
    r"""(?<!\w)'[^']*(?:'|$) | "[^"]*(?:"|$) | 0x[0-9a-fA-F]+ | [-+]?\d[\d.,_]*(?:[eE][-+]?\d+)?""", re.VERBOSE
)


class Failure(msgspec.Struct, frozen=True):
    """Failed lines of one kind. message, file, line: of the first one seen; line: 1-based in its file."""

    code: str
    message: str
    count: int
    file: str
    line: int

    def text(self) -> str:
        """A line for people."""
        what, first = (f"{self.count:,}x {self.code}", "first ") if self.count > 1 else (self.code, "")
        return f"{what}, {first}at {self.file}:{self.line}: {self.message}"


@dataclass(slots=True)
class _Kind:
    code: str
    message: str
    where: tuple[str, int]
    count: int = 0


class Failures:
    """Counts failed lines by code and kind of message; of bounded size, whatever the messages say."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._shown = 0
        self.total = 0

    def add(self, code: str, message: str, where: tuple[str, int]) -> str | None:
        """Count a line. where: name of its file, and line number. Returns a sentence to show where its kind is new."""
        self.total += 1
        key = code, kind_of(message)
        kind = self._kinds.get(key)
        if kind is None and len(self._kinds) >= _MOST_KINDS:
            key, message = (code, _OTHER), _OTHER
            kind = self._kinds.get(key)
        new = kind is None
        if kind is None:
            kind = self._kinds[key] = _Kind(code, _cut(message), where)
        kind.count += 1
        return self._sentence(kind) if new else None

    def kinds(self) -> tuple[Failure, ...]:
        """The most frequent first; of equally many, the one seen first."""
        kinds = sorted(self._kinds.values(), key=lambda kind: -kind.count)
        return tuple(Failure(kind.code, kind.message, kind.count, *kind.where) for kind in kinds)

    def codes(self) -> dict[str, int]:
        """Failed lines of each error code."""
        counts: Counter[str] = Counter()
        for kind in self._kinds.values():
            counts[kind.code] += kind.count
        return dict(counts)

    def _sentence(self, kind: _Kind) -> str | None:
        self._shown += 1
        if self._shown > SHOWN_KINDS:
            return None
        name, number = kind.where
        more = "; further kinds of error are only counted" if self._shown == SHOWN_KINDS else ""
        return f"{name}:{number}: {kind.code}: {kind.message}{more}"


@dataclass(frozen=True, slots=True)
class ErrorLimit:
    """How many lines may fail: `--max-errors`. percent: whether `most` is a share of the job's lines."""

    most: float
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> ErrorLimit:
        """Read N or P%. Raises UsageError."""
        number = text.strip().removesuffix("%").strip()
        percent = text.strip().endswith("%")
        if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,6})?" if percent else r"[0-9]{1,15}", number):
            raise UsageError(f"--max-errors {text}: give a number of lines such as 100, or a share such as 2.5%")
        if percent and float(number) > 100:
            raise UsageError(f"--max-errors {text}: more than all lines cannot fail; give at most 100%")
        return cls(float(number), percent)

    def allowed(self, lines: int) -> int:
        """Failed lines of a job of so many that do not stop it."""
        return int(lines * self.most / 100) if self.percent else int(self.most)

    def __str__(self) -> str:
        return f"{self.most:g}%" if self.percent else f"{self.most:.0f}"


def shown(failures: tuple[Failure, ...]) -> list[str]:
    """The counts, a line a kind, SHOWN_KINDS of them at most and one for the rest."""
    texts = [failure.text() for failure in failures[:SHOWN_KINDS]]
    if rest := failures[SHOWN_KINDS:]:
        count = sum(failure.count for failure in rest)
        texts.append(f"{count:,}x other errors of {len(rest):,} kinds")
    return texts


def kind_of(message: str) -> str:
    """The message without what differs from line to line."""
    return _VARYING.sub("…", message[:_LONGEST_MESSAGE])


def _cut(message: str) -> str:
    flat = " ".join(message[: 2 * _LONGEST_MESSAGE].split())
    return flat if len(flat) <= _LONGEST_MESSAGE else f"{flat[: _LONGEST_MESSAGE - 1]}…"

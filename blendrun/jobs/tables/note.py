"""What was made of tables, in one sentence with counts, however many there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec


class Made(msgspec.Struct, frozen=True):
    """how: a clause on what the rows of a table became. rows, and of them: those that cannot be requests, conversations
    that ended with an answer, those with a system message of their own.
    """

    how: str
    rows: int
    bad: int = 0
    answered: int = 0
    own_system: int = 0

    def text(self) -> str:
        """For a file."""
        return msgspec.json.encode(self).decode()


def notes(made: Iterable[tuple[str, str]]) -> list[str]:
    """A sentence for all tables that became requests in the same way. made: of each, its name and what `Made` wrote."""
    alike: dict[str, list[tuple[str, Made]]] = defaultdict(list)
    for name, text in made:
        try:
            found = msgspec.json.decode(text, type=Made)
        except msgspec.DecodeError:
            continue
        alike[found.how].append((name, found))
    return [_note(how, tables) for how, tables in alike.items()]


def _note(how: str, tables: list[tuple[str, Made]]) -> str:
    name = tables[0][0] if len(tables) == 1 else f"{tables[0][0]} and {len(tables) - 1:,} more"
    counts = (
        (sum(made.answered for _, made in tables), "conversations end with an answer, which is left out"),
        (sum(made.own_system for _, made in tables), "have a system message of their own, which stays"),
        (sum(made.bad for _, made in tables), "cannot be requests, and are error lines"),
    )
    rows = sum(made.rows for _, made in tables)
    return "; ".join([f"{name}: {rows:,} rows {how}", *(f"{count:,} {what}" for count, what in counts if count)])

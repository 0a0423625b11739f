"""What an earlier invocation left: whether it is of the same input, and whether it has finished this very job."""

from __future__ import annotations

import msgspec

from blendrun.jobs.lines_read import LinesRead
from blendrun.store.folder import StateFolder
from blendrun.store.manifest import Manifest
from blendrun.store.own_files import OwnFiles
from blendrun.store.shards import Rows, read_rows
from blendrun.store.summary import Summary


def same_input(old: Manifest, lines: LinesRead, state: StateFolder) -> bool:
    """Whether the lines that were read then are those of now, as far as both go."""
    try:
        kept = LinesRead.kept(state.lines.read_bytes(), old.limit)
    except OSError:
        return False
    return kept is not None and kept.same_input(lines)


def finished_before(
    old: Manifest | None, new: Manifest, rows: Rows | None, before: Summary | None, files: OwnFiles
) -> Summary | None:
    """The summary of the run that finished this very job, if its files are still as it wrote them.

    old: the manifest of before. rows: of a shard. before: the last summary.
    """
    if before is None or before.status != "completed" or not _unchanged(old, new, rows, files.state):
        return None
    return before if files.whole(failed=before.errors is not None) else None


def only_tables_differ(old: Manifest | None, new: Manifest) -> bool:
    """Whether all is as before but for cells of tables that no prompt reads."""
    if old is None or not old.tables or old.tables == new.tables:
        return False
    return old == msgspec.structs.replace(new, written=old.written, tables=old.tables)


def _unchanged(old: Manifest | None, new: Manifest, rows: Rows | None, state: StateFolder) -> bool:
    """Whether the manifest of before is that of now, and all that goes with it is there."""
    if old is None or old != msgspec.structs.replace(new, written=old.written):
        return False
    kept = read_rows(state) if rows is not None else None
    return rows is None or (kept is not None and kept.finished)

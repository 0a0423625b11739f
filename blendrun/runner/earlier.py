"""What earlier invocations left of this run: whether it is of the same job, whether it finished it, what that cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from blendrun.jobs.lines_read import LinesRead
from blendrun.runner.settings import RunSettings
from blendrun.store import manifest as manifests
from blendrun.store import summary as summaries
from blendrun.store.folder import StateFolder
from blendrun.store.journal import Journal
from blendrun.store.manifest import Manifest
from blendrun.store.own_files import OwnFiles, WrittenFile
from blendrun.store.shards import Rows, read_rows
from blendrun.store.summary import Summary, cost_of


@dataclass(frozen=True, slots=True)
class Earlier:
    """manifest: of the invocation before; None where there was none, or where nothing of it counts (`--no-resume`).

    summary: of the last one that came to an end. Working under the state folder's lock.
    """

    settings: RunSettings
    state: StateFolder
    manifest: Manifest | None
    summary: Summary | None

    @classmethod
    def read(cls, settings: RunSettings, state: StateFolder) -> Earlier:
        """Raises OutputUnavailableError for a manifest that cannot be read, unless changes are accepted."""
        summary = summaries.read(state.summary)
        manifest = manifests.read(state.manifest, accept_changes=settings.accept_changes or not settings.resume)
        return cls(settings, state, manifest, summary)

    @property
    def written(self) -> tuple[WrittenFile, ...]:
        """The files that it wrote."""
        return self.manifest.written if self.manifest else ()

    @property
    def tables(self) -> tuple[str, ...]:
        """What the output that is there was written from, of tables."""
        return self.manifest.tables if self.manifest else ()

    @property
    def completed(self) -> bool:
        """Whether all files of its job were written, of whatever job."""
        return self.summary is not None and self.summary.status == "completed"

    def forgotten(self) -> Earlier:
        """The same where its job does not count."""
        return replace(self, manifest=None)

    def check(self, new: Manifest, lines: LinesRead, journal: Journal) -> None:
        """Raises InputChangedError, or what else `manifests.check` raises, for another job than the one that began.

        Without a finished request there is nothing to mix: a failed first start binds nobody to its settings.
        """
        if self.manifest is None or (journal.empty and not self.state.output.exists()):
            return
        same = self._same_input(lines)
        manifests.check(self.manifest, new, accept_changes=self.settings.accept_changes, same_input=same)

    def finished(self, new: Manifest, rows: Rows | None, files: OwnFiles) -> Summary | None:
        """The summary of the run that finished this very job, if its files are still as it wrote them.

        Its cost is at the price of now, where one is given. rows: of a shard.
        """
        done = self.summary
        if done is None or not self.completed or not self._unchanged(new, rows):
            return None
        if not files.whole(failed=done.errors is not None):
            return None
        devices = done.devices or self.settings.devices
        cost = cost_of(done.seconds.get("wall", 0.0), devices, self.settings.gpu_hour) or done.cost
        return msgspec.structs.replace(done, cost=cost)

    def only_tables_differ(self, new: Manifest) -> bool:
        """Whether all is as before but for cells of tables that no prompt reads."""
        old = self.manifest
        if old is None or not old.tables or old.tables == new.tables:
            return False
        return old == msgspec.structs.replace(new, written=old.written, tables=old.tables)

    def _same_input(self, lines: LinesRead) -> bool:
        """Whether the lines that were read then are those of now, as far as both go."""
        if self.manifest is None:
            return False
        try:
            kept = LinesRead.kept(self.state.lines.read_bytes(), self.manifest.limit)
        except OSError:
            return False
        return kept is not None and kept.same_input(lines)

    def _unchanged(self, new: Manifest, rows: Rows | None) -> bool:
        """Whether the manifest of before is that of now, and all that goes with it is there."""
        old = self.manifest
        if old is None or old != msgspec.structs.replace(new, written=old.written):
            return False
        kept = read_rows(self.state) if rows is not None else None
        return rows is None or (kept is not None and kept.finished)

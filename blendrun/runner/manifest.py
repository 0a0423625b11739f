"""What an invocation writes into the manifest: everything that could change an answer."""

from __future__ import annotations

from pathlib import Path

from blendrun.jobs.job import Job
from blendrun.names import Purpose
from blendrun.remote.address import is_address, shown
from blendrun.runner.settings import RunSettings
from blendrun.store.folder import StateFolder, path_text
from blendrun.store.manifest import SCHEMA_VERSION, Manifest
from blendrun.store.shards import Rows
from blendrun.store.tables.kind import table_kind
from blendrun.store.tables.own import own_tables
from blendrun.version import __version__


def manifest_of(settings: RunSettings, job: Job, rows: Rows | None, purpose: Purpose) -> Manifest:
    """The manifest of a run of `job` with these settings, before it has written any file.

    rows: what `job` is of a larger one. purpose: of the engines.
    """
    # As the argument of an engine's that a user may give himself.
    embeds = {} if purpose is Purpose.GENERATE else {"is_embedding": True}
    return Manifest(
        schema_version=SCHEMA_VERSION,
        versions={"blendrun": __version__, **settings.versions},
        inputs=tuple(map(_input, settings.inputs)),
        input_fingerprint=job.fingerprint,
        limit=settings.limit,
        model=path_text(settings.model),
        model_identity=settings.model_identity,
        engine=settings.engine,
        answer_settings=settings.answer_settings | embeds,
        shard=str(settings.shard) if settings.shard is not None else None,
        division=rows.division if rows is not None else None,
        tables=_tables(settings.output, job),
    )


def _tables(output: Path, job: Job) -> tuple[str, ...]:
    """What changes with each table beside whose columns the answers stand: prompts need not read all of them."""
    if table_kind(output) is None:
        return ()
    spool = StateFolder(output).spool
    return tuple(
        # A copy is named by its content, and may be made anew.
        table.path.stem if table.path.parent == spool else "{2} bytes, {3} ns".format(*table.stamp)
        for table in own_tables(job.sources)
    )


def _input(name: str) -> str:
    if name == "-":
        return "<stdin>"
    return shown(name) if is_address(name) else path_text(Path(name).resolve())

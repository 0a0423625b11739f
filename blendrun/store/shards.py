"""One of several runs that divide a job among them: its rows, and the putting together of what all of them wrote."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from heapq import merge
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from blendrun.errors import (
    DrainedError,
    InputInvalidError,
    InputMissingError,
    ManifestMismatchError,
    UsageError,
    unreadable,
    unwritable,
)
from blendrun.events import Listener
from blendrun.files import file_mode, remove_written, replacing, write_atomically, written_through
from blendrun.jobs.job import Job
from blendrun.remote.address import local_paths
from blendrun.store import manifest as manifests
from blendrun.store.folder import StateFolder, path_text
from blendrun.store.guard import refuse_inputs, refuse_other_runs
from blendrun.store.manifest import Manifest
from blendrun.store.own_files import ERRORS, OUTPUT, Digest, Digesting, OwnFiles, WrittenFile

# What NumPy and zipfile say of a file that is torn, or none of theirs.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)
Divide = Callable[[Job, int, Listener], NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class Shard:
    """Shard `number` (1 to `count`) of `count`. divide: shard of each row of a job, 0 to count - 1."""

    number: int
    count: int
    divide: Divide

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What the state folder keeps of a shard. row: i64 (n,), ascending rows of the whole job. division: digest of the
    shards of all its rows. rows: of the whole job. failed: bool (n,), empty until the shard is finished."""

    row: NDArray[np.int64]
    division: str
    rows: int
    failed: NDArray[np.bool_]

    @property
    def finished(self) -> bool:
        """Whether every row has an answer or an error."""
        return len(self.failed) == len(self.row)

    @property
    def sound(self) -> bool:
        """Whether it can be what a shard wrote."""
        row, failed = self.row, self.failed
        if row.ndim != 1 or row.dtype != np.int64 or failed.dtype != np.bool_ or len(failed) not in (0, len(row)):
            return False
        return not len(row) or (bool((np.diff(row) > 0).all()) and row[0] >= 0 and int(row[-1]) < self.rows)


def take_shard(job: Job, shard: Shard, kept: Rows | None, listener: Listener) -> tuple[Job, Rows]:
    """The shard's part of a job. kept: an earlier invocation's rows, which stand, whatever would be found today."""
    if kept is not None and kept.rows == len(job):
        return job.take(kept.row), kept
    part = shard.divide(job, shard.count, listener)
    division = blake2b(part.tobytes(), digest_size=16).hexdigest()
    rows = Rows(np.flatnonzero(part == shard.number - 1), division, len(job), np.zeros(0, dtype=np.bool_))
    return job.take(rows.row), rows


def write_rows(state: StateFolder, rows: Rows) -> None:
    """Raises OutputUnavailableError."""
    data = io.BytesIO()
    division = np.frombuffer(bytes.fromhex(rows.division), dtype=np.uint8)
    np.savez_compressed(data, row=rows.row, division=division, rows=np.int64(rows.rows), failed=rows.failed)
    write_atomically(state.shard, data.getvalue())


def read_rows(state: StateFolder) -> Rows | None:
    """None where there are none, or they cannot be read: torn, empty, of another shape.

    The shard's next run finds and writes them again.
    """
    try:
        with np.load(io.BytesIO(state.shard.read_bytes()), allow_pickle=False) as found:
            rows = Rows(found["row"], found["division"].tobytes().hex(), int(found["rows"]), found["failed"])
    except _UNREADABLE:
        return None
    return rows if rows.sound else None


def shard_output(output: Path, number: int, count: int) -> Path:
    """Where a shard writes: answers.jsonl becomes answers.2-of-8.jsonl."""
    return output.with_name(f"{output.stem}.{number}-of-{count}{output.suffix}")


@dataclass(frozen=True, slots=True)
class Merged:
    """What `merge_shards` wrote."""

    shards: int
    answered: int
    failed: int


def merge_shards(output: Path, *, overwrite: bool = False) -> Merged:
    """Put the files of all shards of `output` together in the order of the input, each by atomic rename.

    overwrite: what is there may be replaced although no merge made it.

    Raises UsageError (no shards, or of different counts), DrainedError (some are not finished), ManifestMismatchError
    (they do not belong together), InputInvalidError (a file is not what its shard wrote), OutputUnavailableError.
    """
    whole = StateFolder(output)
    states = _states(output)
    rows = _finished(states)
    made = _check_together(states, rows)
    inputs = local_paths(dict.fromkeys(name for each in made for name in each.inputs))
    try:
        # What the shards wrote is read, too.
        refuse_inputs(whole, [*inputs, *(path for each in states for path in (each.output, each.errors))])
        for path in (whole.output, whole.errors):
            refuse_other_runs(path_text(path), written_through(path), whole, overwrite=overwrite)
        with whole.locked():
            return _write(states, rows, made, _files(whole, overwrite))
    except OSError as failure:
        raise unwritable(output, failure, "the same command merges again") from failure


def _files(whole: StateFolder, overwrite: bool) -> OwnFiles:
    """What a merge before has written."""

    def keep(records: tuple[WrittenFile, ...]) -> None:
        write_atomically(whole.merged, msgspec.json.encode(records) + b"\n")

    try:
        records = msgspec.json.decode(whole.merged.read_bytes(), type=tuple[WrittenFile, ...])
    except (OSError, msgspec.DecodeError):
        records = ()
    return OwnFiles(whole, records, keep, overwrite, kept="The shards still have all answers")


def _write(states: list[StateFolder], rows: list[Rows], made: list[Manifest], files: OwnFiles) -> Merged:
    whole, mode = files.state, file_mode(states[0].output)
    with ExitStack() as stack:
        answers, errors = (
            Digesting(stack.enter_context(replacing(path, mode, whole.parts))) for path in (whole.output, whole.errors)
        )
        shards = list(zip(states, rows, made, strict=True))
        answered = _copy(
            answers, [_lines(each.output, of.row[~of.failed], by.records(OUTPUT)) for each, of, by in shards]
        )
        failed = _copy(errors, [_lines(each.errors, of.row[of.failed], by.records(ERRORS)) for each, of, by in shards])
        files.replace({OUTPUT: answers, ERRORS: errors})
    if not failed:
        remove_written(whole.errors)
    return Merged(len(states), answered, failed)


def _states(output: Path) -> list[StateFolder]:
    """State folders of all shards, in their order."""
    pattern = re.compile(rf"{re.escape(output.stem)}\.(\d+)-of-(\d+){re.escape(output.suffix)}\.blendrun")
    try:
        found = [match for path in output.parent.iterdir() if (match := pattern.fullmatch(path.name))]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputMissingError(f"cannot read {output.parent}: {error.strerror}; check the path") from error
    except OSError as error:
        raise unreadable(output.parent, error, "the same command merges again") from error
    counts = sorted({int(match[2]) for match in found})
    if not counts:
        raise UsageError(f"no shards of {output} are here: they are called {shard_output(output, 1, 8).name}, ...")
    if len(counts) > 1:
        several = ", ".join(map(str, counts))
        raise UsageError(f"shards of {output} are here in {several} parts; remove those that are not wanted")
    return [StateFolder(shard_output(output, number, counts[0])) for number in range(1, counts[0] + 1)]


def _finished(states: list[StateFolder]) -> list[Rows]:
    found = [read_rows(state) for state in states]
    left = [
        str(number)
        for number, (state, rows) in enumerate(zip(states, found, strict=True), start=1)
        if rows is None or not rows.finished or not state.output.is_file()
    ]
    if left:
        raise DrainedError(f"shards not finished yet: {', '.join(left)} of {len(states)}; run them, then merge again")
    return [rows for rows in found if rows is not None]


def _check_together(states: list[StateFolder], rows: list[Rows]) -> list[Manifest]:
    """Of one job, with one model, each row in one of them. What each of them says of itself."""
    found: list[Manifest] = []
    for number, state in enumerate(states, start=1):
        manifest = manifests.read(state.manifest)
        if manifest is None:
            raise ManifestMismatchError(f"{state.manifest} is missing: run shard {number} again")
        found.append(manifest)
        first = found[0]
        if (manifest.salt, manifest.input_fingerprint, manifest.limit) != (
            first.salt,
            first.input_fingerprint,
            first.limit,
        ):
            raise ManifestMismatchError(
                f"shard {number} is of another job, or was run with another model or other settings than shard 1 "
                f"(see {path_text(state.manifest)}); run it again with --no-resume"
            )
    every = np.sort(np.concatenate([each.row for each in rows]))
    # Compared with its own length first: what a file says of the job may be any number.
    whole = len(every) == rows[0].rows and np.array_equal(every, np.arange(len(every)))
    if len({each.division for each in rows}) > 1 or not whole:
        raise ManifestMismatchError(
            "the shards did not divide the job alike (another --dedupe, another version of blendrun or of the model's "
            "files?); run them again alike, with --no-resume"
        )
    return found


def _lines(path: Path, row: NDArray[np.int64], written: tuple[WrittenFile, ...]) -> Iterator[tuple[int, bytes]]:
    """Each line with its row. written: what its shard may have written there; () where nobody knows.

    Raises InputInvalidError where it is another file by now.
    """
    count, content = 0, Digest()
    if len(row):
        with path.open("rb") as file:
            for line in file:
                content.add(line)
                if count < len(row):
                    yield int(row[count]), line
                count += 1
    if count != len(row):
        raise InputInvalidError(f"{path} has {count} lines, and its shard wrote {len(row)}; run that shard again")
    if len(row) and written and content.record(written[0].name) not in written:
        raise InputInvalidError(f"{path} is not what its shard wrote there; move it away, and run that shard again")


def _copy(file: Digesting, lines: list[Iterator[tuple[int, bytes]]]) -> int:
    count = 0
    for _, line in merge(*lines):
        file.write(line)
        count += 1
    return count

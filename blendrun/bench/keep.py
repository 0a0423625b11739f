"""The folder that `bench live --keep` leaves its files in: no file that was there before is written to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from blendrun.errors import OutputUnavailableError, UsageError
from blendrun.files import written_through
from blendrun.names import Overlap
from blendrun.store.folder import path_text
from blendrun.store.guard import refuse_files_of_runs

# The names of what a bench leaves: logs, records and step logs of orders and engines.
_MODES = "|".join(Overlap)
_KEPT = re.compile(rf"(.+-)?({_MODES})(\.log|-\d+\.records\.jsonl|\.steps\.jsonl|\.occupancy|\.estimates)")


def kept_folder(path: Path, jobs: Iterable[Path], *, overwrite: bool) -> Path:
    """The folder, made where it is not there, and without files of a bench. jobs: what is read.

    overwrite: files of a bench before are removed; other files stay in any case.

    Raises UsageError within a run's state, and where a file that is read has such a name; OutputUnavailableError where
    files of a bench are there, or the folder cannot be had.
    """
    try:
        folder = written_through(path)
        refuse_files_of_runs(f"--keep {path_text(path)}", folder, (), overwrite=overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        before = [each for each in folder.iterdir() if _KEPT.fullmatch(each.name)]
        for each in before:
            if any(job.exists() and each.exists() and each.samefile(job) for job in jobs):
                raise UsageError(f"--keep {path_text(path)} would write over {path_text(each)}, which is read")
        if before and not overwrite:
            raise OutputUnavailableError(
                f"--keep {path_text(path)} has files of a bench before ({path_text(before[0].name)}); give another "
                "folder, or --overwrite to replace them"
            )
        for each in before:
            each.unlink()
    except OSError as error:
        raise OutputUnavailableError(
            f"cannot write {path_text(path)}: {error.strerror}; give another folder with --keep"
        ) from error
    return folder

"""The files and folders that options of a run name to be written: each its own, refused before anything begins."""

from __future__ import annotations

from pathlib import Path

from blendrun.backends.options import RunOptions
from blendrun.errors import OutputUnavailableError, UsageError
from blendrun.store.answer_cache import refuse_other_folder
from blendrun.store.folder import SUFFIX, StateFolder, path_text
from blendrun.store.guard import Target


def check_written(options: RunOptions) -> None:
    """Raises UsageError where two options name one file, or a file in the folder of `--cache`; OutputUnavailableError
    where that folder is one of something else.
    """
    named = {
        "--trace": options.trace,
        "--metrics-textfile": options.metrics_textfile,
        "--partial": options.partial_path,
    }
    files = [(option, path) for option, path in named.items() if path is not None and Target(path, option).file]
    for place, (option, path) in enumerate(files):
        for other, at in files[:place]:
            if _same(path, at):
                raise UsageError(f"{other} and {option} are one file, {path_text(path)}; give them two")
    if options.cache is not None:
        _refuse_state(options.cache, StateFolder(options.output_path))
        _check_cache(options.cache, [*files, ("-o", options.output_path)])


def _check_cache(cache: Path, files: list[tuple[str, Path]]) -> None:
    for option, path in files:
        if path.resolve().is_relative_to(cache.resolve()):
            raise UsageError(
                f"{option} {path_text(path)} is in the folder of --cache, where nothing else is kept; give another name"
            )


def _refuse_state(cache: Path, own: StateFolder) -> None:
    place = cache.resolve()
    for folder in (place, *place.parents):
        state = folder.name.endswith(SUFFIX) and folder.name != SUFFIX and StateFolder.at(folder).used
        if state or folder == own.path.resolve():
            raise OutputUnavailableError(
                f"--cache {path_text(cache)} is in the state folder of a run; give another folder"
            )
    refuse_other_folder(cache)


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))

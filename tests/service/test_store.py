"""The folder of a server: what may be one, and that nothing outside of it is ever removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from blendrun.errors import OutputUnavailableError
from blendrun.service.objects import new_id
from blendrun.service.store import Store


def deep(tmp_path: Path) -> Path:
    """A store so far down that a name which climbs out of it stays within the test's own folder."""
    folder = tmp_path / "a" / "b" / "c" / "d" / "store"
    folder.parent.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("name", ["..", "../..", ".", "", "run-x", "run-x/../..", f"run-{'0' * 32}/.."])
def test_a_run_whose_name_is_no_name_removes_nothing(tmp_path: Path, name: str) -> None:
    store = Store(deep(tmp_path))
    try:
        beside = store.folder.parent / "somebody's"
        beside.write_text("x")
        (store.folder / "runs" / f"run-{'0' * 32}").mkdir()
        before = sorted(tmp_path.rglob("*"))
        store.remove_run(name)
        assert sorted(tmp_path.rglob("*")) == before
    finally:
        store.close()


def test_a_run_is_removed_with_all_it_has(tmp_path: Path) -> None:
    store = Store(deep(tmp_path))
    try:
        folder = store.run(new_id("run-"))
        (folder / "answers.jsonl.blendrun").mkdir(parents=True)
        store.remove_run(folder.name)
        assert not folder.exists()
        assert (store.folder / "runs").is_dir()
    finally:
        store.close()


def test_a_folder_of_other_files_is_no_store_and_stays_open(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "mine.content").write_text("x")
    (folder / "notes.txt").write_text("x")
    folder.chmod(0o755)
    with pytest.raises(OutputUnavailableError, match="holds other files"):
        Store(folder)
    assert (folder / "files" / "mine.content").read_text() == "x"
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_link_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OutputUnavailableError, match="it is a link"):
        Store(tmp_path / "link")

"""The folder of a server: what may be one, that nothing outside of it is ever removed, files whose time has come."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from blendrun.errors import OutputUnavailableError
from blendrun.service import store as stores
from blendrun.service.objects import BatchObject, FileObject, new_id, now
from blendrun.service.store import Store
from tests.needs import needs


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
        with pytest.raises(FileNotFoundError):
            store.run(name)
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


@pytest.mark.parametrize("name", ["", "files", "runs"])
@pytest.mark.skipif(os.geteuid() != 0, reason=needs("root, to make a folder of another user", "run as root"))
def test_a_folder_of_another_user_is_no_store_nor_a_part_of_one(tmp_path: Path, name: str) -> None:
    Store(tmp_path / "store").close()
    place = tmp_path / "store" / name
    os.chown(place, 12345, 12345)
    place.chmod(0o777)
    with pytest.raises(OutputUnavailableError, match="it belongs to another user"):
        Store(tmp_path / "store")
    assert place.stat().st_mode & 0o777 == 0o777


def test_a_link_in_a_store_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x.content").write_text("x")
    (tmp_path / "store" / "files").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputUnavailableError, match="it is a link"):
        Store(tmp_path / "store")
    assert (tmp_path / "mine" / "x.content").read_text() == "x"


def test_what_a_server_has_left_is_its_store_again(tmp_path: Path) -> None:
    """Tidied up: what a kill has left goes, what is whole stays; so does what a file system has put there."""
    folder = tmp_path / "store"
    folder.mkdir(mode=0o755)
    (folder / "lost+found").mkdir()
    store = Store(folder)
    with store.new_file("me", "a.jsonl", "batch") as (file, path):
        path.write_text("content")
    store.close()
    assert folder.stat().st_mode & 0o777 == 0o700
    left = folder / "files" / f".blendrun-{'0' * 32}.tmp"
    left.write_text("half")
    (folder / "files" / "file-0.content").write_text("half")
    (folder / "key").write_text("key")
    other = folder / "files" / "other.json"
    other.write_bytes(msgspec.json.encode(file))
    again = Store(folder)
    assert list(again.files) == [file.id]
    assert again.content(file).read_text() == "content"
    assert not left.exists() and not (folder / "files" / "file-0.content").exists()
    again.close()


def batch_of(file: FileObject) -> BatchObject:
    return BatchObject(
        id=new_id("batch_"),
        owner="me",
        endpoint="/v1/embeddings",
        input_file_id=file.id,
        completion_window="24h",
        created_at=now(),
        expires_at=now() + 86_400,
    )


def kept(store: Store, lasts: int | None) -> FileObject:
    with store.new_file("me", "x", "batch", lasts=lasts) as (file, path):
        path.write_bytes(b"x")
    return file


def test_a_file_goes_when_its_time_has_come_and_no_batch_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    late, needed, stays = kept(store, 3600), kept(store, 3600), kept(store, None)
    batch = batch_of(needed)
    assert store.add_batch(batch)
    assert [file.id for file in store.all_files()] == [late.id, needed.id, stays.id]
    later = now() + 3600
    monkeypatch.setattr(stores, "now", lambda: later)
    assert [file.id for file in store.all_files()] == [stays.id]
    assert store.file_of("me", late.id) is None
    store.drop_expired()
    assert not store.content(late).exists()
    assert store.content(needed).read_bytes() == b"x"
    store.change(batch, lambda each: each.turn("completed"))
    store.drop_expired()
    assert sorted(path.stem for path in (tmp_path / "store" / "files").glob("*.json")) == [stays.id]
    store.close()


def test_a_change_that_cannot_be_kept_has_not_been_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    file = kept(store, None)
    batch = batch_of(file)
    assert store.add_batch(batch)
    with monkeypatch.context() as patch:
        patch.setattr(stores, "write_atomically", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            store.change(batch, lambda each: each.turn("completed"))
    assert (batch.status, batch.completed_at) == ("validating", None)
    store.close()

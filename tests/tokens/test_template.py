"""Templates render as in transformers, and a tokenizer's files are read as it reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest

from blendrun.tokens.template import ChatTemplate, RenderError, detect_content_format
from tests.tokens.shapes import BARE_TOOL, SYSTEM, TEMPLATES, TOOL, USER
from tests.tokens.token_jobs import smollm2_folder

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
ODD = {
    "generation keeps its variables": "{% generation %}{% set x = 1 %}a{% endgeneration %}{{ x | default('gone') }}",
    "blocks are trimmed": "a\n  {% if true %}\n  b\n  {% endif %}\nc",
    "loop controls": "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "no html escapes": "{{ {'b': '<é&\\'>', 'a': 1} | tojson }} {{ [1, 2] | tojson(indent=2) }}",
    "tojson's options": "{{ {'b': 1, 'a': 'é'} | tojson(ensure_ascii=true, separators=(',', ':'), sort_keys=true) }}",
    "methods of strings": "{{ messages[0].content.split(' ')[0].upper().strip() }}{{ messages | length }}",
    "today": "{{ strftime_now('%Y') }}",
    "documents": "{{ documents }}{{ unknown }}{{ tools }}",
}
CHATS = [[USER], [SYSTEM, USER], [USER, {"role": "assistant", "content": "Yes."}, USER]]


def renderings() -> Iterator[tuple[str, list[dict[str, Any]], list[dict[str, Any]] | None]]:
    for source in [*TEMPLATES.values(), *ODD.values()]:
        for messages in CHATS:
            for tools in (None, [TOOL], [TOOL, BARE_TOOL]):
                yield source, messages, tools


def test_texts_equal_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers.utils.chat_template_utils")
    compared = 0
    for source, messages, tools in renderings():
        try:
            (theirs,), _ = transformers.render_jinja_template(
                [messages], tools=tools, chat_template=source, add_generation_prompt=True, **SPECIAL
            )
        except (jinja2.TemplateError, TypeError):  # then SGLang tries bare functions, and so do we
            continue
        assert ChatTemplate(source).render(messages, tools, SPECIAL) == theirs
        compared += 1
    assert compared > 100


def test_smollm2_ids_equal_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    from blendrun.endpoints.registry import ENDPOINTS
    from blendrun.tokens.load import load_tokenizer

    folder = smollm2_folder()
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = load_tokenizer(folder)
    for messages in CHATS[:2]:
        prompt = ours.render(ENDPOINTS["/v1/chat/completions"], {"messages": messages})
        expected = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert ours.encode([prompt])[0].tolist() == expected
    for text in ("Hello", " <|im_start|>x<|im_end|>\n", "日本語\u200d…\r\n\n", "1234 5"):
        prompt = ours.render(ENDPOINTS["/v1/completions"], {"prompt": text})
        assert ours.encode([prompt])[0].tolist() == theirs.encode(text)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% for part in message.content %}{% endfor %}", "openai"),
        ("{% for part in message['content'] | list %}{% endfor %}", "openai"),
        ("{% for part in msg.content[1:] %}{% endfor %}", "openai"),
        ("{% for c in m['content'] %}{% endfor %}", "openai"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "string"),
        ("{% for part in other.content %}{% endfor %}", "string"),
        ("{# takes an image #}{{ messages[0].content }}", "openai"),
        ("{% broken", "string"),
    ],
)
def test_content_format_is_found_as_by_sglang(source: str, expected: str) -> None:
    assert detect_content_format(source) == expected


class TestRefusals:
    def test_the_templates_own_words_are_the_reason(self) -> None:
        template = ChatTemplate("{{ raise_exception('Roles must alternate') }}")
        with pytest.raises(RenderError, match="Roles must alternate"):
            template.render([USER], None, {})

    @pytest.mark.parametrize("source", ["{{ messages.nothing.more }}", "{{ 1 / 0 }}", "{{ messages[0].append(1) }}"])
    def test_whatever_a_template_raises_is_a_refusal(self, source: str) -> None:
        with pytest.raises(RenderError):
            ChatTemplate(source).render([USER], None, {})

    def test_bare_functions_are_tried_second(self) -> None:
        template = ChatTemplate("{% for tool in tools %}{{ tool['name'] + '!' }}{% endfor %}")
        assert template.render([USER], [{"function": {"name": "now"}}], {}) == "now!"


class TestTemplateFiles:
    def load(self, folder: Path, **settings: Any) -> Any:
        from blendrun.tokens.load import load_tokenizer
        from tests.tokens.token_jobs import word_tokenizer

        return load_tokenizer(word_tokenizer(folder, None, **settings))

    def test_jinja_file_goes_before_the_configuration(self, tmp_path: Path) -> None:
        (tmp_path / "chat_template.jinja").write_text("file")
        assert self.load(tmp_path, chat_template="config").template.source == "file"

    def test_first_of_several_is_taken(self, tmp_path: Path) -> None:
        several = [{"name": "default", "template": "first"}, {"name": "tool_use", "template": "second"}]
        assert self.load(tmp_path, chat_template=several).template.source == "first"

    def test_json_file_is_the_last_place(self, tmp_path: Path) -> None:
        (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "json"}))
        assert self.load(tmp_path).template.source == "json"

    def test_missing_and_broken_templates_are_told_apart(self, tmp_path: Path) -> None:
        assert "has no chat template" in self.load(tmp_path / "none").no_template
        broken = self.load(tmp_path / "broken", chat_template="{% if %}")
        assert broken.template is None
        assert "does not compile" in broken.no_template

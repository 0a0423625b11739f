"""Small jobs, a small tokenizer and the real one, for the tests of this folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from blendrun.endpoints.rules import FOR_PLANNING
from blendrun.errors import BlendrunError
from blendrun.jobs.index import index_jobs
from blendrun.jobs.job import Job
from blendrun.jobs.source import open_sources
from blendrun.models.resolve import resolve_model
from tests.needs import needs

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SHARED = Path(__file__).parents[3] / "shared" / "workloads"
WORDS = ["<unk>", "<s>", "<u>", "<a>", *(f"w{number}" for number in range(50))]
WORD_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message.role[0] }}>{{ message.content }}"
    "{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def chat(custom_id: str, content: Any = "w1 w2", **fields: Any) -> dict[str, Any]:
    metadata = {"metadata": fields.pop("metadata")} if "metadata" in fields else {}
    messages = fields.pop("messages", None) or [{"role": "user", "content": content}]
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"messages": messages, **fields}, **metadata}


def completion(custom_id: str, prompt: str | list[int], **fields: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": COMPLETIONS, "body": {"prompt": prompt, **fields}}


def make_job(folder: Path, lines: Iterable[dict[str, Any]], name: str = "job.jsonl") -> Job:
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return index_jobs(open_sources([path], folder / "spool"), rules=FOR_PLANNING)


def word_tokenizer(folder: Path, template: str | None = WORD_TEMPLATE, **config: Any) -> Path:
    """A model folder whose tokens are words (`w7` has id 11); plain texts get `<s>` (id 1) in front."""
    folder.mkdir(parents=True, exist_ok=True)
    backend = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    backend.add_special_tokens(["<s>", "<u>", "<a>"])
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.save(str(folder / "tokenizer.json"))
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", **config}))
    return folder


def smollm2_folder() -> Path:
    """The folder of the small real model; skips the test where it is not to be had."""
    try:
        return resolve_model("smollm2-135m", platform="cpu", download=False).path
    except BlendrunError as error:
        pytest.skip(needs("SmolLM2", str(error)))

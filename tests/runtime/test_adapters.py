"""LoRA adapters by line on the real runtime: each line's answer is that of the model with its adapter merged into it.

The model is tiny and random, and so are its adapters.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from tests.adapters import write_adapter, write_merged
from tests.command import blendrun, lines_of
from tests.runtime import requests

pytestmark = [pytest.mark.runtime, pytest.mark.timeout(900)]

TOKENS = 12
QUESTIONS = ("opens at", "has dogs that travel", "sells")
PROMPTS = tuple(f"{requests.PASSAGE}\nThe harbour office {question}" for question in QUESTIONS)
# By the name that a line says its adapter with: which one that is.
NAMES = {"tiny": None, "sql": "sql", "default:law": "law"}
LABELS = [504, 3575]


def _lines() -> list[dict[str, Any]]:
    """Equal prompts under all adapters, then everything else."""
    equal = [
        requests.completion(f"{name} {place}", prompt, model=name, max_tokens=TOKENS)
        for place, prompt in enumerate(PROMPTS)
        for name in NAMES
    ]
    score = {"query": "The sky is", "items": [" blue"], "label_token_ids": LABELS, "apply_softmax": True}
    others = [
        requests.completion("by path", PROMPTS[0], model="default", lora_path="law", max_tokens=TOKENS),
        requests.completion("two choices", PROMPTS[0], model="sql", n=2, max_tokens=TOKENS),
        requests.chat("chat", model="sql", max_tokens=TOKENS),
        {"custom_id": "responses", "url": "/v1/responses", "body": {"model": "sql", "input": "Hi", **_SHORT}},
        *({"custom_id": f"score {name}", "url": "/v1/score", "body": {"model": name, **score}} for name in NAMES),
        requests.completion("unknown model", "A", model="sqll"),
        requests.completion("unknown path", "A", lora_path="sqll", model="tiny"),
        requests.completion("too long", [504] * 8186, model="law"),
    ]
    return [*equal, *others]


_SHORT = {"max_output_tokens": 4, "temperature": 0}


@dataclass(frozen=True)
class Adapted:
    """What the job came to, and the folders of models with an adapter merged; under None the model itself."""

    model: Path
    merged: dict[str | None, Path]
    output: Path
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)

    def command(self, job: Path, output: Path) -> list[str]:
        adapters = [f"{name}={self.output.with_name(name)}" for name in ("sql", "law")]
        on = ["--device", "cpu", "--threads", "1", "--engine-arg", f"lora_paths={json.dumps(adapters)}"]
        return ["run", str(job), "--model", str(self.model), *on, "-o", str(output)]

    def body(self, custom_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self.answers[custom_id]["response"]["body"]
        return body


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Adapted:
    folder = tmp_path_factory.mktemp("adapters")
    sql = write_adapter(folder / "sql", tiny_model, seed=1, rank=4)
    law = write_adapter(folder / "law", tiny_model, seed=2, rank=8, targets=("q_proj", "v_proj"))
    merged: dict[str | None, Path] = {None: tiny_model}
    merged |= {each.name: write_merged(folder / f"with {each.name}", tiny_model, each) for each in (sql, law)}
    job, output = folder / "job.jsonl", folder / "answers.jsonl"
    job.write_bytes(b"\n".join(map(orjson.dumps, _lines())))
    made = Adapted(tiny_model, merged, output)
    done = blendrun(*made.command(job, output), process=True)
    assert done.returncode == 3, done.stderr
    made.answers.update({line["custom_id"]: line for line in lines_of(output)})
    made.errors.update({line["custom_id"]: line for line in lines_of(Path(f"{output}.errors.jsonl"))})
    return made


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_of_the_merged_model(adapted: Adapted, name: str) -> None:
    folder = adapted.merged[NAMES[name]]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), LlamaForCausalLM.from_pretrained(folder)
    for place, prompt in enumerate(PROMPTS):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        found = model.generate(ids, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)
        expected = tokenizer.decode(found[0, ids.shape[1] :])
        assert adapted.body(f"{name} {place}")["choices"][0]["text"] == expected
    assert adapted.body(f"{name} 0")["model"] == (NAMES[name] or str(adapted.model))


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_the_merged_model(adapted: Adapted, name: str) -> None:
    folder = adapted.merged[NAMES[name]]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), LlamaForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        logits = model(tokenizer("The sky is blue", return_tensors="pt").input_ids).logits[0, -1, LABELS]
    torch.testing.assert_close(
        torch.tensor(adapted.body(f"score {name}")["scores"][0]), logits.softmax(0), rtol=1e-3, atol=1e-5
    )


def test_three_models_in_one_batch_answer_differently(adapted: Adapted) -> None:
    texts = [adapted.body(f"{name} 0")["choices"][0]["text"] for name in NAMES]
    assert len(set(texts)) == 3


def test_whichever_field_names_the_adapter(adapted: Adapted) -> None:
    by_path = adapted.body("by path")
    assert by_path["choices"][0]["text"] == adapted.body("default:law 0")["choices"][0]["text"]
    assert by_path["model"] == "law"


def test_each_of_several_choices_and_other_apis_run_on_it(adapted: Adapted) -> None:
    texts = {choice["text"] for choice in adapted.body("two choices")["choices"]}
    assert texts == {adapted.body("sql 0")["choices"][0]["text"]}
    assert adapted.body("chat")["model"] == adapted.body("responses")["model"] == "sql"


def test_equal_prefixes_are_shared_under_one_adapter_and_not_across(adapted: Adapted) -> None:
    for name in NAMES:
        usages = [adapted.body(f"{name} {place}")["usage"] for place in range(len(PROMPTS))]
        first, *others = sorted(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
        assert first == 0
        assert min(others) > 150


def test_the_plan_knows_it(adapted: Adapted) -> None:
    records = {record["custom_id"]: record for record in lines_of(Path(f"{adapted.output}.blendrun", "records.jsonl"))}
    for name in NAMES:
        for place in range(len(PROMPTS)):
            record = records[f"{name} {place}"]
            assert record["planned_hit"] == record["cached"]


@pytest.mark.parametrize("name", ["unknown model", "unknown path", "too long"])
def test_a_bad_line_is_an_error_line_and_no_more(adapted: Adapted, name: str) -> None:
    error = adapted.errors[name]["error"]
    assert error["code"] == ("context_length_exceeded" if name == "too long" else "invalid_request")
    assert name == "too long" or ("'sqll'" in error["message"] and "sql, law" in error["message"])

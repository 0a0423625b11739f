"""Files and command lines as vLLM's documentation and tests have them, in words of our own, through `run-batch`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import orjson
import pytest

from blendrun.cli.foreign_flags import VLLM
from blendrun.cli.run_batch import _parse
from blendrun.errors import UsageError
from tests.command import blendrun, lines_of

SYSTEM, USER = {"role": "system", "content": "You help."}, {"role": "user", "content": "Good morning!"}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"in": {"type": "string"}}}},
}
DOCUMENTS = ["Brasilia lies in Brazil.", "Paris lies in France."]


def request(number: int, url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": f"request-{number}", "method": "POST", "url": url, "body": {"model": "some/model", **body}}


def chat(number: int, **fields: Any) -> dict[str, Any]:
    return request(number, "/v1/chat/completions", messages=[SYSTEM, USER], **fields)


# Each with how many of its lines fail.
FILES: dict[str, tuple[list[dict[str, Any]], int]] = {
    "chats": ([chat(1, max_completion_tokens=1000), chat(2, max_tokens=1000)], 0),
    "one model that is not there, one url, one that streams": (
        [chat(1, max_tokens=9), chat(2, model="none"), {**chat(3), "url": "/bad_url"}, chat(4, stream="True")],
        2,
    ),
    "no custom_id": ([{name: value for name, value in chat(1).items() if name != "custom_id"}, chat(2)], 1),
    "tools": ([chat(1, tools=[TOOL], tool_choice="required", max_tokens=1000)], 0),
    "transcription": ([request(1, "/v1/audio/transcriptions", file_url="data:audio/wav;base64,UklGRg=="), chat(2)], 1),
    "embeddings": ([request(1, "/v1/embeddings", input="You help."), request(2, "/v1/embeddings", input="Hello")], 0),
    "scores": (
        [request(n, url, queries="Where?", documents=DOCUMENTS) for n, url in enumerate(("/score", "/v1/score"))],
        0,
    ),
    "reranking": (
        [
            request(n, url, query="Where?", documents=DOCUMENTS)
            for n, url in enumerate(("/rerank", "/v1/rerank", "/v2/rerank"))
        ],
        0,
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_each_line_has_its_result_in_its_place(name: str, tmp_path: Path) -> None:
    lines, failed = FILES[name]
    # Without a newline at the end, into a file that is there and empty.
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)))
    (tmp_path / "out.jsonl").touch()
    words = ("-i", "in.jsonl", "-o", "out.jsonl", "--model", "some/model", "--engine", "replay")
    done = blendrun("run-batch", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = lines_of(tmp_path / "out.jsonl")
    assert [each["custom_id"] for each in results] == [each.get("custom_id") for each in lines]
    assert sum(each["error"] is not None for each in results) == failed
    for each in results:
        assert set(each) == {"id", "custom_id", "response", "error"}
        assert set(each["response"]) >= {"status_code", "request_id", "body"}


def test_an_empty_file_is_an_empty_output(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").touch()
    words = ("-i", "in.jsonl", "-o", "out.jsonl", "--model", "some/model", "--engine", "replay")
    done = blendrun("run-batch", *words, cwd=tmp_path)
    assert (done.returncode, (tmp_path / "out.jsonl").read_bytes()) == (0, b""), done.stderr
    (tmp_path / "in.jsonl").write_bytes(b"no request\n")
    assert blendrun("run-batch", *words, cwd=tmp_path).returncode == 65


@pytest.mark.parametrize(
    ("line", "options", "arguments"),
    [
        ("-i openai_example_batch.jsonl -o results.jsonl --model meta-llama/Meta-Llama-3-8B-Instruct", {}, {}),
        ("--input-file a.jsonl --output-file b.jsonl --model m --tensor-parallel-size 2", {"tp": 2}, {}),
        (
            "-i https://raw.example.com/in.jsonl -o 'https://s3.example.com/o?AWSAccessKeyId=A&Signature=B' --model m",
            {"inputs": ["https://raw.example.com/in.jsonl"]},
            {},
        ),
        (
            "-i a -o b --model m --gpu-memory-utilization 0.95 --max-num-seqs 15 --max-model-len=4096 --dtype bfloat16",
            {},
            {"mem_fraction_static": 0.95, "max_running_requests": 15, "context_length": 4096, "dtype": "bfloat16"},
        ),
        ("-i a -o b --model m --reasoning-parser qwen3", {}, {"reasoning_parser": "qwen3"}),
        ("-i a -o b --model m --enable-auto-tool-choice --tool-call-parser hermes", {}, {"tool_call_parser": "hermes"}),
        (
            "-i a -o b --model=org/my_model_8b --enforce_eager -tp 4 -dp 2",
            {"model": "org/my_model_8b", "tp": 4, "replicas": 2},
            {"disable_cuda_graph": True},
        ),
        (
            "-i a -o b --model m --served-model-name x y --port 8001 --enable-metrics --device cuda",
            {"metrics_port": 8001, "device": "gpu"},
            {},
        ),
        ("-i a -o b --model m --enforce-eager=False --lora-modules x=/a y=/b", {}, {"lora_paths": ["x=/a", "y=/b"]}),
        ("-i a -o b --model m --limit-mm-per-prompt '{\"image\": 2}'", {}, {"limit_mm_data_per_request": {"image": 2}}),
    ],
)
def test_a_command_line_means_what_it_did(line: str, options: dict[str, Any], arguments: dict[str, Any]) -> None:
    found = _parse(shlex.split(line))
    assert {name: found[name] for name in options} == options
    assert found["engine_args"] == arguments


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ('--speculative-config \'{"method": "ngram"}\'', "--speculative-config cannot be kept: give SGLang's"),
        ("-O3", "-O cannot be kept: --engine-arg enable_torch_compile"),
        ("-O 3", "-O cannot be kept: --engine-arg enable_torch_compile"),
        ("--enable-prefix-caching=False", "--enable-prefix-caching=False cannot be kept"),
        ("--hf-token hf_secret", "--hf-token cannot be kept: put it into the environment"),
        ("--some-flag=secret", "--some-flag: blendrun knows no such flag"),
        ("https://h/x?sig=secret", "'https://h/x?…' belongs to no flag"),
    ],
)
def test_what_cannot_be_kept_is_named(flags: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        _parse(shlex.split(f"-i a -o b --model m {flags}"))
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_each_flag_says_one_thing() -> None:
    for name, flag in VLLM.items():
        said = [each for each in (flag.option, flag.argument, flag.ignored, flag.refused) if each is not None]
        assert len(said) == 1, name

"""`--strict` with a real tokenizer and the real grammar compiler: all is found, and no engine starts."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.command import blendrun, lines_of
from tests.runtime import requests

pytestmark = pytest.mark.runtime


def test_what_tokenizer_and_compiler_refuse_is_listed_before_a_model_is_loaded(tmp_path: Path) -> None:
    # SGLang admits prompts of up to 8,185 tokens to a context of 8,192.
    lines = [
        requests.chat("good", response_format=requests.schema_format(requests.SCHEMA)),
        requests.chat("too long", [{"role": "user", "content": "word " * 9000}]),
        requests.completion("just fits", [504] * 8185),
        requests.completion("just too long", [504] * 8186),
        requests.chat("bad schema", response_format=requests.schema_format({"type": "objet"})),
        requests.completion("bad regex", "A", regex="((("),
        requests.completion("bad regex again", "B", regex="((("),
        requests.chat("bad role", [{"role": "wizard", "content": "Hm."}]),
    ]
    job, output = tmp_path / "job.jsonl", tmp_path / "out.jsonl"
    job.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    done = blendrun("run", job, "--model", "smollm2-135m", "--device", "cpu", "-o", output, "--strict")
    assert done.returncode == 65, done.stderr
    assert "6 of 8 lines cannot be answered" in done.stderr
    assert "phase=load" not in done.stderr
    assert not output.exists()
    errors = [(record["custom_id"], record["error"]["code"]) for record in lines_of(Path(f"{output}.errors.jsonl"))]
    assert errors == [
        ("too long", "context_length_exceeded"),
        ("just too long", "context_length_exceeded"),
        ("bad schema", "schema_unsupported"),
        ("bad regex", "schema_unsupported"),
        ("bad regex again", "schema_unsupported"),
        ("bad role", "invalid_request"),
    ]

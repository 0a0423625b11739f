"""The same bodies through blendrun and SGLang's own server: the same answer, or a refusal that names the field.

python scripts/differential.py --model smollm2-135m [--write docs/differential.md]

Both run on this machine's CPU, the server at a free port of 127.0.0.1. Exits with 1 where an answer differs and the
table of fields does not say that blendrun does what SGLang drops.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from blendrun.endpoints.effects import BODIES, Effect
from blendrun.engine.base import EngineSettings
from blendrun.engine.settings import environment
from blendrun.events import ignore
from blendrun.models.resolve import resolve_model
from blendrun.version import __version__

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_START_S = 600.0
_SKY = [{"role": "user", "content": "Is the sky blue? Answer yes or no."}]
_CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}},
    "required": ["city"],
}
_CITY["additionalProperties"] = False
_TOOL = {"type": "function", "function": {"name": "weather", "parameters": _CITY}}
_FORM = {"type": "json_schema", "json_schema": {"name": "city", "schema": _CITY}}
_CALL = {"id": "c", "type": "function", "function": {"name": "now", "arguments": "{}"}}
_HISTORY = [*_SKY, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And the sea?"}]

CHATS: list[dict[str, Any]] = [
    {},
    {"frequency_penalty": 0.5},
    {"presence_penalty": 0.5},
    {"logit_bias": {"5345": -100}},
    {"logprobs": True, "top_logprobs": 2},
    {"max_completion_tokens": 3, "max_tokens": None},
    {"n": 2},
    {"response_format": {"type": "json_object"}, "max_tokens": 40},
    {"response_format": _FORM, "max_tokens": 40},
    {"seed": 7},
    {"stop": ["."]},
    {"stop": ""},
    {"stream": False},
    {"top_p": 0.5},
    {"tools": [_TOOL], "tool_choice": "none"},
    {"tools": [_TOOL], "tool_choice": "auto", "parallel_tool_calls": True},
    {"tools": [_TOOL], "tool_choice": "required", "max_tokens": 60},
    {"functions": [_TOOL["function"]], "function_call": {"name": "weather"}, "max_tokens": 60},
    {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"},
    {"prompt_cache_key": "k", "safety_identifier": "s", "prediction": {"type": "content", "content": "No."}},
    {"reasoning_effort": "low"},
    {"verbosity": "low"},
    {"modalities": ["text"]},
    {"audio": {"voice": "alloy", "format": "wav"}},
    {"web_search_options": {}},
    {"top_k": 1},
    {"min_p": 0.1},
    {"repetition_penalty": 1.2},
    {"min_tokens": 5},
    {"stop_token_ids": [30]},
    {"ignore_eos": True},
    {"skip_special_tokens": False},
    {"include_stop_str_in_output": True, "stop": ["."]},
    {"no_stop_trim": True, "stop": ["."]},
    {"regex": "(yes|no)"},
    {"ebnf": 'root ::= "yes" | "no"'},
    {"guided_choice": ["yes", "no"]},
    {"guided_regex": "(yes|no)"},
    {"guided_json": _CITY, "max_tokens": 40},
    {"structured_outputs": {"choice": ["yes", "no"]}},
    {"use_beam_search": True},
    {"bad_words": ["No"]},
    {"prompt_logprobs": 1},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"continue_final_message": True, "messages": [*_SKY, {"role": "assistant", "content": "The sky"}]},
    {"messages": _HISTORY},
    {"messages": [{"role": "system", "content": "Be brief."}, *_SKY]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Is the sky blue?"}]}]},
    {"messages": [*_SKY, {"role": "assistant", "tool_calls": [_CALL]}, {"role": "tool", "content": "12:00"}]},
    {"messages": [{"role": "user", "content": "Hi", "name": "bob"}]},
    {"max_token": 2},
]
PLAIN: list[dict[str, Any]] = [
    {},
    {"prompt": ["The capital of France is"]},
    {"prompt": ["The capital of France is", "Water boils at"]},
    {"prompt": [504, 3575, 282, 4649, 314]},
    {"echo": True},
    {"logprobs": 2},
    {"echo": True, "logprobs": 1},
    {"max_completion_tokens": 3, "max_tokens": None},
    {"best_of": 2},
    {"suffix": "."},
    {"stop": ["."]},
    {"json_schema": json.dumps(_CITY), "max_tokens": 40},
    {"n": 2, "seed": 3},
]


@dataclass(frozen=True)
class Outcome:
    """answer: what of a response must be equal; None where it was refused, for `reason`."""

    answer: Any
    reason: str = ""

    @property
    def word(self) -> str:
        return "refused" if self.answer is None else "answered"


def cases() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(url, fields beside the usual ones, whole body) of each."""
    chat = {"messages": _SKY, "temperature": 0, "max_tokens": 8}
    plain = {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 6}
    return [(CHAT, each, chat | each) for each in CHATS] + [(COMPLETIONS, each, plain | each) for each in PLAIN]


def by_blendrun(model: str, folder: Path) -> list[Outcome]:
    """Answers of one run of the command."""
    job, output = folder / "job.jsonl", folder / "answers.jsonl"
    lines = [{"custom_id": str(place), "url": url, "body": body} for place, (url, _, body) in enumerate(cases())]
    job.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [str(Path(sys.executable).with_name("blendrun")), "run", str(job), "--model", model, "--device", "cpu"]
    command += ["--threads", "1", "--order", "given", "--errors-ok", "-q", "-o", str(output)]
    subprocess.run(command, check=True)
    outcomes = {}
    for path in (output, Path(f"{output}.errors.jsonl")):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            error = record["error"]
            found = Outcome(None, error["message"]) if error else Outcome(essence(record["response"]["body"]))
            outcomes[int(record["custom_id"])] = found
    return [outcomes[place] for place in range(len(lines))]


def by_server(model: str, folder: Path) -> list[Outcome]:
    """Answers of SGLang's server, one request after the other."""
    with server(model, folder) as address, httpx.Client(base_url=address, timeout=300.0) as client:
        outcomes = []
        for url, _, body in cases():
            response = client.post(url, json=body)
            good = response.status_code == httpx.codes.OK
            outcomes.append(Outcome(essence(response.json())) if good else Outcome(None, response.text[:200]))
    return outcomes


def essence(body: dict[str, Any]) -> Any:
    """Texts, calls, tokens and ends of all choices: without ids, times and rounding."""
    return [_choice(choice) for choice in body["choices"]]


def _choice(choice: dict[str, Any]) -> list[Any]:
    message = choice.get("message") or {}
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or []]
    logprobs = choice.get("logprobs") or {}
    tokens = logprobs.get("tokens") or [each["token"] for each in logprobs.get("content") or []]
    return [choice["index"], choice.get("text", message.get("content")), calls, tokens, choice["finish_reason"]]


@contextmanager
def server(model: str, folder: Path) -> Iterator[str]:
    """SGLang's server at a free port, up; its address."""
    path = str(resolve_model(model, platform="cpu", listener=ignore).path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sglang.launch_server", "--model-path", path, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--dtype", "float32", "--device", "cpu", "--attention-backend", "torch_native"]
    command += ["--sampling-backend", "pytorch", "--max-total-tokens", "8192", "--max-running-requests", "4"]
    command += ["--context-length", "2048", "--sleep-on-idle", *_parser_arguments(model)]
    variables = os.environ | environment(EngineSettings(path, "cpu", threads=1))
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
        try:
            _await(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, 9)
            process.wait()


def _parser_arguments(model: str) -> list[str]:
    """As the model's card asks for them, which blendrun sets by itself."""
    card = resolve_model(model, platform="cpu", listener=ignore).card
    parser = card.parsers.tool_call if card is not None and card.parsers is not None else None
    return ["--tool-call-parser", parser] if parser else []


def _await(address: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{address}/health", timeout=5.0).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise SystemExit("the server did not come up")


def verdict(url: str, fields: dict[str, Any], here: Outcome, there: Outcome) -> str:
    """ "same", "named" (a refusal that names a field), "done" (what the server drops or refuses) or "differs"."""
    if here.answer is None:
        return "named" if any(name in here.reason for name in fields) else "differs"
    if here.answer == there.answer:
        return "same"
    return "done" if any(_done_here(url, name, value) for name, value in fields.items()) else "differs"


def _done_here(url: str, name: str, value: Any) -> bool:
    """Whether blendrun does what SGLang does not: its own word, or one of those that docs/files.md speaks of."""
    field = BODIES[url].get(name)
    by_table = field is not None and field.effect is Effect.DONE
    return by_table or (name == "stop" and "" in (value, *value)) or value == "required"


def table(model: str) -> tuple[str, list[str]]:
    """The table in Markdown, and what differs."""
    with tempfile.TemporaryDirectory() as folder:
        here, there = by_blendrun(model, Path(folder)), by_server(model, Path(folder))
    rows, wrong = [], []
    for (url, fields, _), own, other in zip(cases(), here, there, strict=True):
        word = verdict(url, fields, own, other)
        shown = json.dumps(fields)
        shown = shown if len(shown) <= 90 else shown[:89] + "…"
        place = "chat" if url == CHAT else "completions"
        rows.append(f"| {place} | `{shown.replace('|', chr(92) + '|')}` | {other.word} | {own.word} | {word} |")
        if word == "differs":
            wrong.append(f"{place} {shown}: here {own}, there {other}")
    head = ["| | fields | SGLang's server | blendrun | |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n", wrong


_PAGE = """# The same bodies through SGLang's server

Written by `python scripts/differential.py --model {model} --write docs/differential.md` (blendrun {version}).

Each body was sent to SGLang's own server and was a line of a job; greedy, on a CPU. *same*: texts, calls, tokens and
ends are equal. *named*: the line is an error line that names the field, which the server drops. *done*: blendrun does
what the server drops, refuses or does otherwise ([fields](files.md#fields-of-a-request)).

{table}"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    text, wrong = table(given.model)
    print(text)
    if given.write:
        given.write.write_text(_PAGE.format(model=given.model, version=__version__, table=text), encoding="utf-8")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()

"""Lines with pictures on the real runtime: by data URL, file and address, counted and shared as the engine does.

The model is tiny and random, with Qwen2-VL's architecture and processor; transformers says what it must answer.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import pytest
from anthropic.types import Message
from openai.types.responses import Response
from PIL import Image
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessor, Qwen2VLProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from blendrun.endpoints.rules import Rules
from blendrun.jobs.index import index_jobs
from blendrun.jobs.source import open_sources
from blendrun.tokens.build import build_prompts
from blendrun.tokens.load import load_tokenizer
from tests.command import blendrun, lines_of
from tests.tiny_vision import SIDE, data_url, picture, write_tiny_vision

pytestmark = [pytest.mark.runtime, pytest.mark.timeout(900)]

TOKENS = 10
QUESTION = "Say in one sentence what the picture above shows, and where it may have been taken."
# Equal in size; one that is scaled down; one that is scaled up, and no PNG.
PICTURES = {
    "cat": picture(1, 7 * SIDE, 6 * SIDE),
    "dog": picture(2, 7 * SIDE, 6 * SIDE),
    "large": picture(3, 1100, 1000),
    "small": picture(4, 20, 33, "JPEG"),
}
COUNTS = {"cat": 42, "dog": 42, "large": 1258, "small": 6}


def _chat(custom_id: str, *urls: str, text: str = QUESTION, **fields: Any) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
    body = {"messages": messages, "max_tokens": TOKENS, "temperature": 0, **fields}
    return {"custom_id": custom_id, "url": "/v1/chat/completions", "body": body}


def _lines(folder: Path, address: str) -> list[dict[str, Any]]:
    urls = {name: data_url(data) for name, data in PICTURES.items()}
    return [
        *(_chat(name, url) for name, url in urls.items()),
        _chat("cat, another question", urls["cat"], text=f"{QUESTION} Why?"),
        _chat("two", urls["cat"], urls["small"]),
        _chat("two choices", urls["dog"], n=2),
        _chat("no picture"),
        _chat("file url", f"file://{folder}/cat"),
        _chat("path", "dog"),
        _chat("address", f"{address}/cat"),
        _responses(urls["cat"]),
        _messages("small"),
        _chat("no such address", f"{address}/none"),
        _chat("outside", "/etc/hostname"),
        _chat("not a picture", data_url(b"no picture at all")),
        _chat("not base64", "data:image/png;base64,###"),
        _chat("too long", *[urls["large"]] * 4),
        _chat("a mark in the text", urls["cat"], text="What does <|image_pad|> mean?"),
    ]


def _responses(url: str) -> dict[str, Any]:
    parts = [{"type": "input_image", "image_url": url, "detail": "auto"}, {"type": "input_text", "text": QUESTION}]
    body = {"input": [{"role": "user", "content": parts}], "max_output_tokens": TOKENS, "temperature": 0}
    return {"custom_id": "responses", "url": "/v1/responses", "body": body}


def _messages(name: str) -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/jpeg", "data": data_url(PICTURES[name]).partition(",")[2]}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": QUESTION}]
    params = {"model": "any", "messages": [{"role": "user", "content": parts}], "max_tokens": TOKENS, "temperature": 0}
    return {"custom_id": "messages", "params": params}


BAD = {
    "no such address": ("media_unavailable", "404"),
    "outside": ("media_unavailable", "lies outside of"),
    "not a picture": ("media_unavailable", "IMAGE"),
    "not base64": ("media_unavailable", "IMAGE"),
    "too long": ("context_length_exceeded", ""),
    "a mark in the text": ("invalid_request", "a text holds such a mark itself"),
}


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class Seen:
    """The model's folder, that of the pictures, the job, and what came of it."""

    model: Path
    media: Path
    job: Path
    answers: dict[str, dict[str, Any]]
    errors: dict[str, dict[str, Any]]
    records: dict[str, dict[str, Any]]

    def body(self, custom_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self.answers[custom_id]["response"]["body"]
        return body

    def text(self, custom_id: str) -> str:
        text: str = self.body(custom_id)["choices"][0]["message"]["content"]
        return text


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("pictures")
    model, media = write_tiny_vision(folder / "model"), folder / "media"
    media.mkdir()
    for name, data in PICTURES.items():
        (media / name).write_bytes(data)
    job, output = folder / "job.jsonl", folder / "answers.jsonl"
    allowed: list[str | Path] = ["--allow-media-files", media, "--allow-media-urls", "--allow-private-media"]
    with _served(media) as address:
        job.write_bytes(b"\n".join(map(orjson.dumps, _lines(media, address))))
        where: list[str | Path] = ["--model", model, "--device", "cpu", "--threads", "1", "-o", output]
        done = blendrun("run", job, *where, *allowed, process=True)
    assert done.returncode == 3 and "not planned" not in done.stderr, done.stderr
    files = output, Path(f"{output}.errors.jsonl"), Path(f"{output}.blendrun", "records.jsonl")
    return Seen(model, media, job, *({line["custom_id"]: line for line in lines_of(file)} for file in files))


@pytest.fixture(scope="module")
def model(seen: Seen) -> Any:
    return Qwen2VLForConditionalGeneration.from_pretrained(seen.model)


@pytest.mark.parametrize("name", PICTURES)
def test_answers_are_those_of_the_model(seen: Seen, model: Any, name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(seen.model)
    images = Qwen2VLImageProcessor.from_pretrained(seen.model)
    processor = Qwen2VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), tokenizer.chat_template)
    parts = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
    )
    given = processor(text=[text], images=[Image.open(io.BytesIO(PICTURES[name]))], return_tensors="pt")
    made = model.generate(**given, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)
    assert seen.text(name) == tokenizer.decode(made[0, given["input_ids"].shape[1] :])
    usage = seen.body(name)["usage"]
    assert usage["prompt_tokens"] == given["input_ids"].shape[1]
    assert usage["prompt_tokens_details"]["image_tokens"] == COUNTS[name]


def test_pictures_differ_and_so_do_answers(seen: Seen) -> None:
    assert len({seen.text(name) for name in (*PICTURES, "no picture")}) == len(PICTURES) + 1


@pytest.mark.parametrize(("custom_id", "name"), [("file url", "cat"), ("path", "dog"), ("address", "cat")])
def test_wherever_it_comes_from(seen: Seen, custom_id: str, name: str) -> None:
    assert seen.text(custom_id) == seen.text(name)


def test_in_other_words_and_in_choices(seen: Seen) -> None:
    response = Response.model_validate(seen.body("responses"))
    assert response.output_text == seen.text("cat")
    message = Message.model_validate(seen.answers["messages"]["result"]["message"])
    assert message.content[0].type == "text" and message.content[0].text == seen.text("small")
    assert {each["message"]["content"] for each in seen.body("two choices")["choices"]} == {seen.text("dog")}


def test_the_plan_counts_what_the_engine_counts(seen: Seen) -> None:
    rules = Rules(media_files=True, media_urls=True, media_folder=seen.media)
    with index_jobs(open_sources([seen.job], seen.job.parent), rules=rules) as job:
        made = build_prompts(job, load_tokenizer(seen.model), context_length=8192, store_folder=seen.job.parent)
        names = [job.request(row).custom_id for row in made.prompts.row.tolist()]
    planned = dict(zip(names, made.prompts.prompt_tokens.tolist(), strict=True))
    estimated = {name for name, guess in zip(names, made.estimated.tolist(), strict=True) if guess}
    # What an address has nobody knows before it is fetched.
    unseen = {"address", "no such address", "outside", "not a picture", "not base64"}
    assert estimated == unseen | {"a mark in the text"}
    known = [name for name in seen.answers if name not in (*estimated, "messages")]
    assert {name: planned[name] for name in known} == {name: seen.records[name]["prompt"] for name in known}


def test_equal_pictures_share_their_prefix_and_others_do_not(seen: Seen) -> None:
    cached = {name: seen.records[name]["cached"] for name in seen.answers}
    of_cat = sorted(cached[name] for name in ("cat", "cat, another question", "file url", "address", "responses"))
    # Before a picture stand the role and a mark.
    assert of_cat[0] < 8 and of_cat[1] > COUNTS["cat"]
    of_dog = sorted(cached[name] for name in ("dog", "path"))
    assert of_dog[0] < 8 and of_dog[1] > COUNTS["dog"]
    assert cached["large"] < 8 and min(cached["small"], cached["messages"]) < 8
    # Fetched ones come when they come: what one was to find another finds. What an address has is no part of the plan.
    del cached["address"]
    # Of requests that come in together one may not find the other's: a picture's tokens at most.
    planned = sum(seen.records[name]["planned_hit"] for name in cached)
    assert abs(sum(cached.values()) - planned) < COUNTS["cat"] + 8


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_an_error_line_and_no_more(seen: Seen, name: str) -> None:
    code, said = BAD[name]
    error = seen.errors[name]["error"]
    assert (not code or error["code"] == code) and said in error["message"], error
    assert json.dumps(error).isprintable()

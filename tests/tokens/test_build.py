"""A job becomes prompts: ids, offsets and columns, what has no place among them, and memory that stays flat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendrun.endpoints.rules import Rules
from blendrun.events import Event, Progress
from blendrun.jobs.index import index_jobs
from blendrun.jobs.job import Job
from blendrun.jobs.source import open_sources
from blendrun.tokens import build as build_module
from blendrun.tokens.build import TokenizedJob, build_prompts, render_text
from blendrun.tokens.load import load_tokenizer
from blendrun.tokens.template import RenderError
from blendrun.tokens.tokenizer import MEDIA_TOKENS, PromptTokenizer
from tests.needs import workload
from tests.tokens.token_jobs import WORD_TEMPLATE, chat, completion, make_job, smollm2_folder, word_tokenizer

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
OTHER_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,BBBB"}}


@pytest.fixture
def tokenizer(tmp_path: Path) -> PromptTokenizer:
    return load_tokenizer(word_tokenizer(tmp_path / "model"))


def build(folder: Path, tokenizer: PromptTokenizer, *lines: dict[str, Any], context_length: int = 64) -> TokenizedJob:
    job = make_job(folder, lines)
    return build_prompts(job, tokenizer, context_length=context_length, store_folder=folder / "tokens")


def prompt_ids(tokenized: TokenizedJob) -> list[list[int]]:
    prompts = tokenized.prompts
    return [
        prompts.units[begin:end].tolist() for begin, end in zip(prompts.offsets[:-1], prompts.offsets[1:], strict=True)
    ]


class TestPrompts:
    def test_ids_of_every_kind_of_prompt(self, tmp_path: Path, tokenizer: PromptTokenizer) -> None:
        made = build(tmp_path, tokenizer, chat("a", "w0"), completion("b", "w1 w2"), completion("c", [7, 8]))
        assert prompt_ids(made) == [[1, 2, 4, 3], [1, 5, 6], [7, 8]]
        assert made.prompts.prompt_tokens.tolist() == [4, 3, 2]
        assert made.prompts.offsets.tolist() == [0, 4, 7, 9]
        assert made.prompts.unit_tokens == 1
        assert len(made.prompts) == 3

    def test_types_are_as_promised(self, tmp_path: Path, tokenizer: PromptTokenizer) -> None:
        prompts = build(tmp_path, tokenizer, chat("a")).prompts
        types = {
            "row": "i8", "units": "i4", "offsets": "i8", "prompt_tokens": "i4", "root": "u8", "cluster": "u8",
            "bound": "i4", "choices": "i4", "reference": "i4", "known": "?",
        }  # fmt: skip
        assert {name: getattr(prompts, name).dtype for name in types} == {k: np.dtype(v) for k, v in types.items()}

    def test_bound_is_what_was_asked_within_the_context(self, tmp_path: Path, tokenizer: PromptTokenizer) -> None:
        lines = [chat("open", "w0"), chat("few", "w0", max_tokens=5), chat("many", "w0", max_tokens=500, n=3)]
        prompts = build(tmp_path, tokenizer, *lines).prompts
        assert prompts.bound.tolist() == [60, 5, 60]
        assert prompts.choices.tolist() == [1, 1, 3]

    def test_reference_counts_the_end_token_and_stays_in_bound(
        self, tmp_path: Path, tokenizer: PromptTokenizer
    ) -> None:
        lengths = [10, 0, 500, "7", True, None, -1]
        lines = [chat(str(n), "w0", metadata={"reference_output_tokens": n}) for n in lengths]
        prompts = build(tmp_path, tokenizer, *lines, chat("without")).prompts
        assert prompts.reference.tolist() == [11, 1, 60, -1, -1, -1, -1, -1]
        assert not prompts.known.any()

    def test_a_length_is_known_where_nothing_but_the_bound_can_end_the_answer(
        self, tmp_path: Path, tokenizer: PromptTokenizer
    ) -> None:
        forms = {"type": "json_object"}
        fields: list[dict[str, Any]] = [
            {"max_tokens": 7, "ignore_eos": True},
            {"max_tokens": 500, "ignore_eos": True},
            {"ignore_eos": True},
            {"max_tokens": 1},
            {"max_tokens": 7},
            {"max_tokens": 7, "ignore_eos": False},
            {"max_tokens": 7, "ignore_eos": True, "stop": ["x"]},
            {"max_tokens": 7, "ignore_eos": True, "response_format": forms},
        ]
        lines = [chat(str(number), "w0", **each) for number, each in enumerate(fields)]
        prompts = build(tmp_path, tokenizer, *lines).prompts
        assert prompts.known.tolist() == [True] * 4 + [False] * 4
        assert prompts.reference.tolist() == [7, 60, 60, 1, -1, -1, -1, -1]

    def test_rejected_lines_and_unwanted_rows_are_left_out(self, tmp_path: Path, tokenizer: PromptTokenizer) -> None:
        job = make_job(tmp_path, [chat("a", "w0"), {"custom_id": "bad"}, chat("c", "w1"), chat("d", "w2")])
        store = tmp_path / "tokens"
        whole = build_prompts(job, tokenizer, context_length=64, store_folder=store)
        assert whole.prompts.row.tolist() == [0, 2, 3]
        some = build_prompts(job, tokenizer, context_length=64, store_folder=store, rows=np.array([3, 0]))
        assert some.prompts.row.tolist() == [0, 3]
        assert prompt_ids(some) == [prompt_ids(whole)[0], prompt_ids(whole)[2]]


class TestKinds:
    def roots(self, folder: Path, tokenizer: PromptTokenizer, *fields: dict[str, Any]) -> list[int]:
        lines = [chat(str(number), **one) for number, one in enumerate(fields)]
        roots: list[int] = build(folder, tokenizer, *lines).prompts.root.tolist()
        return roots

    def test_ordinary_prompts_share_one_root(self, tmp_path: Path, tokenizer: PromptTokenizer) -> None:
        assert self.roots(tmp_path, tokenizer, {}, {"model": "m"}, {"temperature": 0.5}) == [0, 0, 0]

    def test_adapter_and_salt_part_prompts(self, tmp_path: Path, tokenizer: PromptTokenizer) -> None:
        roots = self.roots(
            tmp_path,
            tokenizer,
            {"model": "m:tiny"},
            {"lora_path": "tiny"},
            {"model": "m:large"},
            {"cache_salt": "tiny"},
            {"extra_key": "tiny"},
        )
        assert roots[0] == roots[1] != 0
        assert len(set(roots)) == 4

    def test_declared_adapters_part_prompts_by_whichever_field_names_them(
        self, tmp_path: Path, tokenizer: PromptTokenizer
    ) -> None:
        names = [{"model": "sql"}, {"model": "base:sql"}, {"lora_path": "sql"}, {"model": "law"}]
        lines = [chat(str(number), **one) for number, one in enumerate([*names, {"model": "base"}, {"model": "a:b"}])]

        def made(adapters: tuple[str, ...] | None) -> list[int]:
            job = make_job(tmp_path, lines)
            job = replace(job, reading=replace(job.reading, rules=Rules(adapters=adapters, base=None)))
            built = build_prompts(job, tokenizer, context_length=64, store_folder=tmp_path / "tokens")
            return [int(root) for root in built.prompts.root]

        roots = made(("sql", "law"))
        assert roots[0] == roots[1] == roots[2] != 0 != roots[3] != roots[0]
        assert roots[4:] == [0, 0]
        assert made(()) == [0] * 6, "an engine without adapters shares all"

    def test_answers_under_an_adapter_are_of_a_kind_of_their_own(
        self, tmp_path: Path, tokenizer: PromptTokenizer
    ) -> None:
        one, same, other = build(
            tmp_path, tokenizer, chat("a", model="m"), chat("b", model="m"), chat("c", model="m", lora_path="sql")
        ).prompts.cluster.tolist()
        assert one == same != other

    def test_clusters_part_what_answers_depend_on(self, tmp_path: Path, tokenizer: PromptTokenizer) -> None:
        schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
        same = [chat("a", "w0"), chat("b", "w1 w2", temperature=0.9)]
        others = [
            chat("c", max_tokens=5),
            chat("d", model="x"),
            chat("e", response_format=schema),
            chat("f", tools=[{"type": "function", "function": {"name": "f"}}]),
            chat("g", metadata={"task": "sum"}),
            chat("h", metadata={"job": "label"}),
            completion("i", "w1"),
        ]
        made = build(tmp_path, tokenizer, *same, *others)
        clusters = made.prompts.cluster.tolist()
        assert clusters[0] == clusters[1]
        assert len(set(clusters)) == 8
        assert np.count_nonzero(made.schema) == 1


class TestLeftOut:
    def test_prompts_without_room_for_an_answer(self, tmp_path: Path, tokenizer: PromptTokenizer) -> None:
        lines = [completion("a", [5] * 9), completion("b", [5] * 10), completion("c", [5] * 11), completion("d", [5])]
        made = build(tmp_path, tokenizer, *lines, context_length=10)
        assert made.over_context.tolist() == [1, 2]
        assert made.prompts.row.tolist() == [0, 3]
        assert made.prompts.bound.tolist() == [1, 9]

    def test_prompts_without_tokens(self, tmp_path: Path) -> None:
        tokenizer = load_tokenizer(word_tokenizer(tmp_path / "model", "{{ messages[0].content }}"))
        made = build(tmp_path, tokenizer, chat("a", " "), chat("b", "w0"))
        assert made.empty.tolist() == [0]
        assert prompt_ids(made) == [[4]]

    def test_prompts_that_do_not_render(
        self, tmp_path: Path, tokenizer: PromptTokenizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(build_module, "MAX_MESSAGES", 2)
        made = build(tmp_path, tokenizer, *(chat(str(n), reasoning_effort="vast") for n in range(3)), chat("ok", "w0"))
        assert made.failed.tolist() == [0, 1, 2]
        assert [row for row, _ in made.messages] == [0, 1]
        assert "vast" in made.messages[0][1]
        assert made.prompts.row.tolist() == [3]

    def test_a_job_of_which_nothing_is_left(self, tmp_path: Path) -> None:
        tokenizer = load_tokenizer(word_tokenizer(tmp_path / "model", None))
        made = build(tmp_path, tokenizer, chat("a"), chat("b"))
        assert len(made.prompts) == 0
        assert made.prompts.offsets.tolist() == [0]
        assert "no chat template" in made.messages[0][1]


class TestMedia:
    TEMPLATE = WORD_TEMPLATE.replace(
        "{{ message.content }}",
        "{% for part in message.content %}{{ part.text if part.type == 'text' else ' w40 ' }}{% endfor %}",
    )

    def build(self, folder: Path, *contents: Sequence[dict[str, Any]]) -> TokenizedJob:
        tokenizer = load_tokenizer(word_tokenizer(folder / "model", self.TEMPLATE))
        lines = [chat(str(number), list(content)) for number, content in enumerate(contents)]
        return build(folder, tokenizer, *lines, context_length=8192)

    def test_media_count_as_documented(self, tmp_path: Path) -> None:
        text = {"type": "text", "text": "w0"}
        made = self.build(tmp_path, [text], [text, IMAGE], [IMAGE, OTHER_IMAGE])
        assert made.prompts.prompt_tokens.tolist() == [4, 5 + MEDIA_TOKENS["image"], 5 + 2 * MEDIA_TOKENS["image"]]
        assert made.estimated.tolist() == [False, True, True]
        assert np.array_equal(np.diff(made.prompts.offsets), made.prompts.prompt_tokens)

    def test_prompts_share_a_root_where_their_media_are_the_same(self, tmp_path: Path) -> None:
        question, other = {"type": "text", "text": "w0"}, {"type": "text", "text": "w1"}
        roots = self.build(
            tmp_path, [IMAGE, question], [IMAGE, other], [OTHER_IMAGE, question], [question]
        ).prompts.root.tolist()
        assert roots[0] == roots[1]
        assert len(set(roots)) == 3

    def test_a_text_templates_parts_are_joined_without_media(self, tmp_path: Path, tokenizer: PromptTokenizer) -> None:
        made = build(tmp_path, tokenizer, chat("a", [{"type": "text", "text": "w0"}, IMAGE]))
        assert prompt_ids(made) == [[1, 2, 4, 3]]
        assert not made.estimated.any()


class TestPipeline:
    """Batches of two rows, so that a small job has many."""

    @pytest.fixture(autouse=True)
    def small_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(build_module, "_BATCH_ROWS", 2)

    def test_batches_join_without_a_seam(self, tmp_path: Path, tokenizer: PromptTokenizer) -> None:
        texts = [" ".join(f"w{word}" for word in range(number % 7)) or "w0" for number in range(23)]
        made = build(tmp_path, tokenizer, *(completion(str(n), text) for n, text in enumerate(texts)))
        alone = [tokenizer.encoder.backend.encode(text).ids for text in texts]
        assert prompt_ids(made) == alone

    def test_few_prompts_are_alive_at_once(
        self, tmp_path: Path, tokenizer: PromptTokenizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waiting = most = 0
        batches, add = build_module._Builder.batches, build_module._Builder.add

        def counted_batches(self: Any, rows: Any) -> Any:
            nonlocal waiting, most
            for batch in batches(self, rows):
                waiting += 1
                most = max(most, waiting)
                yield batch

        def counted_add(self: Any, *given: Any) -> None:
            nonlocal waiting
            add(self, *given)
            waiting -= 1

        monkeypatch.setattr(build_module._Builder, "batches", counted_batches)
        monkeypatch.setattr(build_module._Builder, "add", counted_add)
        build(tmp_path, tokenizer, *(chat(str(number)) for number in range(60)))
        assert waiting == 0
        assert most == 2

    def test_progress_ends_at_the_end(self, tmp_path: Path, tokenizer: PromptTokenizer) -> None:
        job = make_job(tmp_path, [chat(str(number)) for number in range(7)])
        events: list[Event] = []
        build_prompts(job, tokenizer, context_length=64, store_folder=tmp_path / "tokens", listener=events.append)
        seen = [event.done for event in events if isinstance(event, Progress)]
        assert events == [Progress(done, 7, "requests") for done in sorted(seen)]
        assert seen[-1] == 7

    def test_a_failure_while_encoding_leaves_nothing_behind(self, tmp_path: Path, tokenizer: PromptTokenizer) -> None:
        class Broken(PromptTokenizer):
            def encode(self, prompts: Any) -> Any:
                raise MemoryError

        broken = Broken(**{name: getattr(tokenizer, name) for name in PromptTokenizer.__slots__})
        with pytest.raises(MemoryError):
            build(tmp_path, broken, *(chat(str(number)) for number in range(9)))
        assert list((tmp_path / "tokens").iterdir()) == []


def test_text_for_display(tmp_path: Path, tokenizer: PromptTokenizer) -> None:
    job = make_job(tmp_path, [chat("a", "w0"), completion("b", [5, 6]), chat("c", reasoning_effort="vast")])
    assert render_text(job, 0, tokenizer) == "<s><u>w0<a>"
    assert render_text(job, 1, tokenizer) == "w1 w2"
    with pytest.raises(RenderError):
        render_text(job, 2, tokenizer)


# From ../shared/workloads/README.md: prompt tokens in all (M), mean, longest.
WORKLOADS = {
    "smoke-mix.jsonl": (0.07, 341, 1026),
    "xquad-translate.jsonl.gz": (0.54, 206, 662),
    "instruct-mix.jsonl.gz": (0.59, 82, 11_395),
    "xquad-qa-5lang.jsonl.gz": (2.71, 455, 2876),
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_published_counts_of_the_workloads(name: str, tmp_path: Path) -> None:
    job: Job = index_jobs(open_sources([workload(name)], tmp_path / "spool"))
    tokenizer = load_tokenizer(smollm2_folder())
    made = build_prompts(job, tokenizer, context_length=1 << 20, store_folder=tmp_path)
    tokens = made.prompts.prompt_tokens
    assert len(tokens) == len(job)
    assert (round(tokens.sum() / 1e6, 2), round(tokens.mean()), tokens.max()) == WORKLOADS[name]
    assert (made.prompts.reference > 0).all()


def test_who_wants_log_probabilities_in_whose_words(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(word_tokenizer(tmp_path / "model"))
    asked: list[dict[str, Any]] = [{}, {"return_logprob": False}, {"return_logprob": True, "logprob_start_len": 0}]
    bodies = [{"text": "w1 w2", **fields} for fields in asked]
    lines: list[dict[str, Any]] = [
        *({"custom_id": str(place), "url": "/generate", "body": body} for place, body in enumerate(bodies)),
        completion("c", "w1 w2", logprobs=0),
        chat("d", logprobs=True),
        chat("e"),
    ]
    tokenized = build_prompts(
        make_job(tmp_path, lines), tokenizer, context_length=100, store_folder=tmp_path / "tokens"
    )
    assert tokenized.logprobs.tolist() == [False, False, True, True, True, False]

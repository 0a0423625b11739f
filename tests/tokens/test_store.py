"""A token store is made once, found again where it fits, and never trusted where it is not whole."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from blendrun.errors import OutputUnavailableError
from blendrun.jobs.job import Job
from blendrun.tokens.build import TokenizedJob, build_prompts
from blendrun.tokens.load import load_tokenizer
from blendrun.tokens.store import SUFFIX, StoreWriter, open_store, prune
from blendrun.tokens.tokenizer import PromptTokenizer
from tests.tokens.token_jobs import WORD_TEMPLATE, chat, make_job, word_tokenizer

LINES = [chat(str(number), f"w{number} w1", metadata={"reference_output_tokens": number}) for number in range(20)]


class Fixture:
    """One job and its store, built as often as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "tokens"
        self.model = word_tokenizer(folder / "model")

    def build(self, lines: list[dict[str, Any]] = LINES, **settings: Any) -> TokenizedJob:
        job: Job = make_job(self.folder, lines)
        tokenizer: PromptTokenizer = settings.pop("tokenizer", None) or load_tokenizer(self.model)
        return build_prompts(job, tokenizer, **{"context_length": 64, "store_folder": self.store, **settings})

    @property
    def files(self) -> list[Path]:
        return sorted(self.store.iterdir())


@pytest.fixture
def made(tmp_path: Path) -> Fixture:
    fixture = Fixture(tmp_path)
    assert not fixture.build().reused
    return fixture


def same(left: TokenizedJob, right: TokenizedJob) -> bool:
    names = type(left.prompts).__slots__
    return all(np.array_equal(getattr(left.prompts, name), getattr(right.prompts, name)) for name in names)


class TestReuse:
    def test_a_second_plan_opens_the_store_without_the_tokenizer(
        self, made: Fixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = made.build()

        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("tokenised again")

        monkeypatch.setattr(PromptTokenizer, "encode", refuse)
        monkeypatch.setattr(PromptTokenizer, "render", refuse)
        second = made.build()
        assert first.reused
        assert second.reused
        assert same(first, second)
        assert len(made.files) == 1

    def test_another_name_of_the_same_lines_is_the_same_job(self, made: Fixture) -> None:
        job = make_job(made.folder, LINES, "copy.jsonl")
        again = build_prompts(job, load_tokenizer(made.model), context_length=64, store_folder=made.store)
        assert again.reused

    def test_left_out_rows_are_remembered(self, made: Fixture) -> None:
        lines = [chat("a", reasoning_effort="vast"), chat("b", "w1 " * 99), *LINES[2:]]
        first, second = made.build(lines), made.build(lines)
        assert second.reused
        assert second.messages == first.messages
        assert second.failed.tolist() == [0]
        assert second.over_context.tolist() == [1]

    @pytest.mark.parametrize(
        "change",
        [
            lambda made: made.build(LINES[:-1]),
            lambda made: made.build([*LINES[:-1], chat("19", "w1 w2")]),
            # Metadata are not in the job's fingerprint, but they are in the columns.
            lambda made: made.build([chat("0", "w0 w1", metadata={"reference_output_tokens": 9}), *LINES[1:]]),
            lambda made: made.build(context_length=65),
            lambda made: made.build(rows=np.array([1, 2])),
            lambda made: made.build(tokenizer=load_tokenizer(made.model, template_defaults={"x": 1})),
            lambda made: made.build(tokenizer=load_tokenizer(word_tokenizer(made.model, WORD_TEMPLATE + "w1"))),
        ],
    )
    def test_whatever_changes_the_content_makes_another(
        self, made: Fixture, change: Callable[[Fixture], TokenizedJob]
    ) -> None:
        assert not change(made).reused
        assert len(made.files) == 2

    def test_a_template_with_a_date_is_good_for_a_day(
        self, made: Fixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from blendrun.tokens import build as module

        class Tomorrow(date):
            @classmethod
            def today(cls) -> Self:
                return cls.fromordinal(cls.max.toordinal() - 1)

        model = word_tokenizer(tmp_path / "dated", WORD_TEMPLATE + "{{ strftime_now('%d') }}")
        assert not made.build(tokenizer=load_tokenizer(model)).reused
        assert made.build(tokenizer=load_tokenizer(model)).reused
        monkeypatch.setattr(module, "date", Tomorrow)
        assert not made.build(tokenizer=load_tokenizer(model)).reused


class TestDamage:
    @pytest.mark.parametrize("cut", [1, 17, 200, 100_000])
    def test_a_torn_file_is_made_anew(self, made: Fixture, cut: int) -> None:
        good = made.build()
        units = good.prompts.units.copy()
        (file,) = made.files
        content = file.read_bytes()
        file.write_bytes(content[: max(0, len(content) - cut)])
        again = made.build()
        assert not again.reused
        assert np.array_equal(again.prompts.units, units)
        assert file.read_bytes() == content

    @pytest.mark.parametrize("content", [b"", b"x", b"something else " * 1000])
    def test_a_foreign_file_is_made_anew(self, made: Fixture, content: bytes) -> None:
        made.files[0].write_bytes(content)
        assert not made.build().reused
        assert made.build().reused

    def test_a_store_under_another_key_is_not_taken(self, made: Fixture) -> None:
        (file,) = made.files
        file.rename(made.store / f"{'0' * 32}{SUFFIX}")
        assert open_store(made.store, "0" * 32) is None

    def test_a_changed_footer_is_not_taken(self, made: Fixture) -> None:
        (file,) = made.files
        file.write_bytes(file.read_bytes().replace(b'"prompt_tokens":["<i4"', b'"prompt_tokens":["<u4"'))
        assert open_store(made.store, file.stem) is None

    def test_a_writer_that_dies_leaves_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path, "k") as writer:
            writer.extend(np.arange(10, dtype=np.int32))
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_cannot_be_written_is_named(self, made: Fixture, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(OutputUnavailableError, match="BLENDRUN_CACHE"):
            made.build(store_folder=tmp_path / "file" / "tokens")


def test_two_may_build_at_once(made: Fixture) -> None:
    made.files[0].unlink()
    job, tokenizers = make_job(made.folder, LINES), [load_tokenizer(made.model) for _ in range(4)]
    built: list[TokenizedJob] = []

    def work(tokenizer: PromptTokenizer) -> None:
        built.append(build_prompts(job, tokenizer, context_length=64, store_folder=made.store))

    threads = [threading.Thread(target=work, args=(tokenizer,)) for tokenizer in tokenizers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 4
    assert all(same(built[0], other) for other in built)
    assert len(made.files) == 1


class TestPruning:
    def put(self, folder: Path, key: str, size: int, used: int) -> Path:
        path = folder / f"{key}{SUFFIX}"
        path.write_bytes(bytes(size))
        os.utime(path, (used, used))
        return path

    def test_the_longest_unused_go_first(self, tmp_path: Path) -> None:
        files = [self.put(tmp_path, f"s{number}", 100, number) for number in range(5)]
        prune(tmp_path, "s4", limit=250)
        assert [file.exists() for file in files] == [False, False, False, True, True]

    def test_the_one_in_use_stays_whatever_its_size(self, tmp_path: Path) -> None:
        files = [self.put(tmp_path, "small", 10, 2), self.put(tmp_path, "own", 1000, 1)]
        prune(tmp_path, "own", limit=50)
        assert [file.exists() for file in files] == [True, True]

    def test_opening_counts_as_use(self, made: Fixture) -> None:
        (file,) = made.files
        os.utime(file, (1, 1))
        made.build()
        assert file.stat().st_mtime > 1_000_000

    def test_what_dead_writers_left_goes_after_a_day(self, tmp_path: Path) -> None:
        old, new = tmp_path / ".tokens-old.tmp", tmp_path / ".tokens-new.tmp"
        old.touch()
        new.touch()
        os.utime(old, (1, 1))
        prune(tmp_path, "none")
        assert (old.exists(), new.exists()) == (False, True)

    def test_other_files_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        prune(tmp_path, "none", limit=0)
        assert (tmp_path / "notes.txt").exists()

    def test_an_open_store_outlives_its_file(self, made: Fixture) -> None:
        tokenized = made.build()
        before = tokenized.prompts.units.tolist()
        prune(made.store, "none", limit=0)
        assert made.files == []
        assert tokenized.prompts.units.tolist() == before

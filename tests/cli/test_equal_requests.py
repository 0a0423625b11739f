"""`--dedupe`, `--cache` and `--partial` as their users have them: processes, kills, a server that counts."""

from __future__ import annotations

import ast
import importlib.util
import json
import signal
import subprocess
from collections import Counter
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from blendrun.backends.same import greedy_urls, parse_size
from blendrun.errors import UsageError
from tests.answering_server import answering
from tests.command import REPLAY, await_answers, blendrun, line, lines_of, start

CHAT = "/v1/chat/completions"
SLOW = ("--engine-arg", "slots=4", "--engine-arg", "decode_rate=10", "--engine-arg", "real_time=400")


def write_jobs(path: Path, rows: int, **body: Any) -> Path:
    """Forty lines in a hundred ask what one of the others asks."""
    asks = [row if row % 5 > 1 else row - row % 5 + 2 for row in range(rows)]
    lines = [json.loads(line(f"id {row}", f"question {each}")) for row, each in enumerate(asks)]
    for each in lines:
        each["body"] |= {"temperature": 0, **body}
        each["metadata"] = {"reference_output_tokens": 100}
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


def copies_in(path: Path) -> int:
    return sum(answer["id"].endswith("_copy") for answer in lines_of(path))


def summary_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out.parent / f"{out.name}.blendrun" / "summary.json").read_bytes())
    return found


class Server:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self._lock = Lock()

    def answer(self, path: str, body: Any) -> dict[str, Any]:
        text = body["messages"][-1]["content"]
        with self._lock:
            self.asked[text] += 1
        choice = {"index": 0, "message": {"role": "assistant", "content": f"to {text}"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        return {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}


def test_a_server_is_asked_sixty_times_for_a_hundred_lines_and_once_for_two_files(tmp_path: Path) -> None:
    jobs, server = write_jobs(tmp_path / "jobs.jsonl", 100), Server()
    with answering("m", server.answer) as address:
        engine = ("--engine", address, "--cache", tmp_path / "cache")
        assert blendrun("run", jobs, "-o", tmp_path / "a.jsonl", *engine).returncode == 0
        assert len(server.asked) == server.asked.total() == 60
        more = write_jobs(tmp_path / "more.jsonl", 150)
        ended = blendrun("run", more, "-o", tmp_path / "b.jsonl", *engine)
        assert (ended.returncode, server.asked.total()) == (0, 90)
    assert summary_of(tmp_path / "b.jsonl")["taken"] == {"copies": 60, "cache": 60}
    assert "not asked  60 copies of other lines, 60 answers kept from other runs" in ended.stderr
    assert "150 of 150 (100.0 %), 0 failed; 120 needed no engine" in blendrun("status", tmp_path / "b.jsonl").stdout
    for request, answer in zip(lines_of(more), lines_of(tmp_path / "b.jsonl"), strict=True):
        text = request["body"]["messages"][0]["content"]
        assert answer["response"]["body"]["choices"][0]["message"]["content"] == f"to {text}"


def test_killed_half_way_and_resumed_each_line_is_there_once(tmp_path: Path) -> None:
    jobs, out, partial = write_jobs(tmp_path / "jobs.jsonl", 200), tmp_path / "out.jsonl", tmp_path / "partial.jsonl"
    command = ("run", jobs, "-o", out, *REPLAY, "--partial", partial, "--cache", tmp_path / "cache")
    journal = tmp_path / "out.jsonl.blendrun" / "journal"
    process = start(*command, *SLOW)
    await_answers(journal, 40, process)
    follower = start("answers", out, "--follow", stdout=subprocess.PIPE)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = journal.read_bytes().count(b"\n") - 1
    assert blendrun(*command).returncode == 0
    shown, stderr = follower.communicate(timeout=60)
    assert follower.returncode == 0, stderr
    lines = out.read_text().splitlines()
    assert len(lines) == len({json.loads(each)["custom_id"] for each in lines}) == 200
    # As they came, each once, and both the same.
    assert sorted(shown.splitlines()) == sorted(lines)
    assert partial.read_text() == shown
    summary = summary_of(out)
    assert (summary["counts"]["completed"], summary["taken"]["copies"], copies_in(out)) == (200, 80, 80)
    records = lines_of(tmp_path / "out.jsonl.blendrun" / "records.jsonl")
    # What the killed run asked and had no answer to is asked again, and nothing else.
    asked = Counter(record["row"] for record in records)
    assert 40 <= done < 200
    assert max(asked.values()) == 1
    assert len(asked) <= 120


def test_after_a_stop_the_partial_file_can_be_read(tmp_path: Path) -> None:
    jobs, out, partial = write_jobs(tmp_path / "jobs.jsonl", 200), tmp_path / "out.jsonl", tmp_path / "partial.jsonl"
    command = ("run", jobs, "-o", out, *REPLAY, *SLOW, "--partial", partial, "--drain-timeout", "0.2")
    process = start(*command)
    await_answers(tmp_path / "out.jsonl.blendrun" / "journal", 20, process)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 75
    assert 20 <= len(lines_of(partial)) < 200
    assert partial.read_text() == blendrun("answers", out).stdout


def test_two_runs_share_a_cache_at_once(tmp_path: Path) -> None:
    outs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    jobs = [write_jobs(tmp_path / "one.jsonl", 300), write_jobs(tmp_path / "two.jsonl", 400)]
    shared = (*REPLAY, "--cache", tmp_path / "cache")
    runs = [start("run", job, "-o", out, *shared) for job, out in zip(jobs, outs, strict=True)]
    for process in runs:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        assert "are not kept" not in stderr and "damaged" not in stderr
    assert [len(lines_of(out)) for out in outs] == [300, 400]
    assert blendrun("run", jobs[1], "-o", tmp_path / "c.jsonl", *shared).returncode == 0
    assert summary_of(tmp_path / "c.jsonl")["taken"] == {"copies": 160, "cache": 240}
    bodies = [[answer["response"]["body"] for answer in lines_of(path)] for path in (outs[1], tmp_path / "c.jsonl")]
    assert bodies[0] == bodies[1]


def test_shards_put_copies_together_and_merge_to_the_same_lines(tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 100)
    asked = 0
    for number in (1, 2, 3):
        assert blendrun("run", jobs, "-o", tmp_path / "out.jsonl", *REPLAY, "--shard", f"{number}/3").returncode == 0
        asked += len(lines_of(tmp_path / f"out.{number}-of-3.jsonl.blendrun" / "records.jsonl"))
    assert asked == 60
    assert blendrun("merge", tmp_path / "out.jsonl").returncode == 0
    assert blendrun("run", jobs, "-o", tmp_path / "whole.jsonl", *REPLAY).returncode == 0
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_where_answers_are_drawn_one_note_says_that_none_is_copied_or_kept(tmp_path: Path) -> None:
    words = ("-o", "out.jsonl", "--no-resume", *REPLAY)

    def said(rows: int, *more: str, **body: Any) -> str:
        write_jobs(tmp_path / "jobs.jsonl", rows, **body)
        done = blendrun("run", "jobs.jsonl", *words, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return str(done.stderr)

    both = said(10, "--cache", "kept", temperature=1)
    assert "answers are drawn: 4 lines ask what another asks, and each is asked, none of 10 is kept; --temp" in both
    assert "none of 1 is kept" in said(1, "--cache", "kept", temperature=1)
    for quiet in (said(1, temperature=1), said(10, temperature=0), said(10, "--dedupe", "off", temperature=1)):
        assert "answers are drawn" not in quiet
    assert "answers are drawn" not in said(10, "--dedupe", "on", "--cache", "kept", temperature=1)


def test_off_asks_all(tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", 10)
    (tmp_path / "off.yaml").write_text("dedupe: off\n")
    for name, words in (("a", ("--dedupe", "off")), ("b", ("--config", tmp_path / "off.yaml"))):
        assert blendrun("run", jobs, "-o", tmp_path / name, *REPLAY, *words).returncode == 0
        assert copies_in(tmp_path / name) == 0


@pytest.mark.parametrize(
    ("config", "arguments", "greedy"),
    [
        ({"temperature": 0.0}, {}, {CHAT}),
        ({"temperature": 0}, {"sampling_defaults": "openai"}, set()),
        ({"temperature": 0.6}, {}, set()),
        ({"do_sample": False}, {}, set()),
        ("no object", {}, set()),
        (None, {}, set()),
    ],
)
def test_the_models_own_temperature_counts_where_a_line_has_none(
    tmp_path: Path, config: Any, arguments: dict[str, Any], greedy: set[str]
) -> None:
    if config is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(config))
    assert greedy_urls(tmp_path, arguments) == greedy


@pytest.mark.parametrize(
    ("text", "size"), [("1M", 1 << 20), ("10G", 10 << 30), ("1.5 GiB", 3 << 29), (1 << 21, 1 << 21), ("2tb", 2 << 40)]
)
def test_sizes_are_read_as_people_write_them(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "1000", "-1G", "1P", "many", "1e9", 10**30])
def test_other_sizes_are_refused(text: str | int) -> None:
    with pytest.raises(UsageError, match="--cache-size"):
        parse_size(text)


def test_sglangs_own_defaults_are_those_that_are_counted_with() -> None:
    """Read as text: importing it takes half a minute."""
    package = importlib.util.find_spec("sglang")
    if package is None or not package.submodule_search_locations:
        pytest.skip("sglang is not installed")
    folder = Path(package.submodule_search_locations[0]) / "srt"

    def assigned(path: str, name: str, holder: str | None = None) -> Any:
        tree: Any = ast.parse((folder / path).read_text())
        if holder is not None:
            tree = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == holder)
        for node in tree.body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if isinstance(target, ast.Name) and target.id == name:
                return ast.literal_eval(node.value)
        raise AssertionError(f"{name} is not in {path}")

    protocol = "entrypoints/openai/protocol.py"
    assert assigned(protocol, "_DEFAULT_SAMPLING_PARAMS", "ChatCompletionRequest")["temperature"] == 1
    assert assigned(protocol, "temperature", "CompletionRequest") == 1
    assert assigned("sampling/sampling_params.py", "_SAMPLING_EPS") == 1e-6

"""`blendrun run-batch`: vllm run-batch's command line and its one file; its flags and SGLang's as hints of `run`."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from blendrun.cli.foreign_flags import VLLM, hint
from tests.command import blendrun, lines_of

GOOD = {"url": "/v1/chat/completions", "method": "POST", "body": {"messages": [{"role": "user", "content": "Hi"}]}}
FILES = ("-i", "in.jsonl", "-o", "out.jsonl", "--model", "x", "--engine", "replay")


def write(path: Path, bad: tuple[int, ...], blank: tuple[int, ...] = (), count: int = 8) -> None:
    lines = []
    for number in range(count):
        line = GOOD | {"custom_id": f"request-{number}"}
        if number in bad:
            line["body"] = {"messages": []}
        lines.append(orjson.dumps(line) + (b"\n\n" if number in blank else b"\n"))
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize("bad", [(), (0,), (3, 4), (0, 7), tuple(range(1, 8))])
@pytest.mark.parametrize("blank", [(), (0, 2, 3)])
def test_one_file_has_answers_and_failures_in_the_order_of_the_input(
    tmp_path: Path, bad: tuple[int, ...], blank: tuple[int, ...]
) -> None:
    write(tmp_path / "in.jsonl", bad, blank)
    done = blendrun("run-batch", *FILES, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = lines_of(tmp_path / "out.jsonl")
    assert [line["custom_id"] for line in lines] == [f"request-{number}" for number in range(8)]
    assert tuple(number for number, line in enumerate(lines) if line["error"] is not None) == bad
    assert {line["response"]["status_code"] for line in lines} == ({200, 400} if bad else {200})
    # Once more, as a script that is started again would.
    assert blendrun("run-batch", *FILES, cwd=tmp_path).returncode == 0
    assert lines_of(tmp_path / "out.jsonl") == lines


def test_what_needs_nothing_is_named_and_what_is_unknown_refused(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ())
    ignored = ("--enable-prefix-caching", "--disable_log_stats", "--served-model-name=y", "--output-tmp-dir", "/tmp/x")
    done = blendrun("run-batch", *FILES, *ignored, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(f"--{name} does nothing here" in done.stderr for name in ("enable-prefix-caching", "disable-log-stats"))
    for words, said in (
        (("--colour", "red"), "--colour: blendrun knows no such flag"),
        (("stray",), "'stray' belongs to no flag"),
        (("--max-model-len",), "--max-model-len needs a value"),
    ):
        refused = blendrun("run-batch", *FILES, *words, cwd=tmp_path)
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
    assert "-o is missing" in blendrun("run-batch", "-i", "in.jsonl", "--model", "x", cwd=tmp_path).stderr


def test_a_file_of_others_is_not_replaced(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ())
    (tmp_path / "out.jsonl").write_text("mine\n")
    assert blendrun("run-batch", *FILES, cwd=tmp_path).returncode == 73
    assert (tmp_path / "out.jsonl").read_text() == "mine\n"
    same = ("-i", "in.jsonl", "-o", "in.jsonl", "--model", "x", "--engine", "replay")
    assert blendrun("run-batch", *same, cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("flag", "instead"),
    [
        ("-i", "the argument: blendrun run FILE"),
        ("--output-file=out.jsonl", "-o FILE"),
        ("--tensor-parallel-size", "--tp"),
        ("--max-model-len", "--engine-arg context_length=VALUE"),
        ("--gpu_memory_utilization=0.9", "--engine-arg mem_fraction_static=VALUE"),
        ("--enforce-eager", "--engine-arg disable_cuda_graph=true"),
        ("--enable-chunked-prefill", "nothing: that is always so"),
    ],
)
def test_a_flag_of_vllm_says_what_it_is_here(flag: str, instead: str, tmp_path: Path) -> None:
    assert hint(flag) == instead
    refused = blendrun("run", "in.jsonl", flag, cwd=tmp_path)
    assert (refused.returncode, f"here it is {instead}" in refused.stderr) == (2, True), refused.stderr


def test_an_argument_of_sglangs_engine_says_so() -> None:
    pytest.importorskip("sglang.version")
    assert hint("--mem-fraction-static") == "--engine-arg mem_fraction_static=VALUE"
    assert hint("--colour") is None


def test_the_engine_has_each_argument_that_a_flag_becomes() -> None:
    pytest.importorskip("sglang.version")
    arguments = {flag.argument for flag in VLLM.values() if flag.argument is not None}
    assert {name for name in arguments if hint(f"--{name.replace('_', '-')}") is None} == set()


def test_h_is_help() -> None:
    assert blendrun("run", "-h").stdout == blendrun("run", "--help").stdout

"""Each change that docs/extending.md shows is applied to a copy of the project, and what it adds is run there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest
from openai.types import ModerationCreateResponse

from tests.answering_server import answering
from tests.command import line, lines_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "extending.md"
# What each addition may cost: files touched.
MOST_FILES = {"An order": 2, "An endpoint": 4, "An engine": 2, "A chart": 2, "A hardware card": 1}
LLAMA = ("--model", "llama-3-8b", "--lengths", "reference", "-q")


def changes() -> dict[str, str]:
    """The page's diffs by heading."""
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {section.partition("\n")[0]: _only_diff(section) for section in sections}


def _only_diff(section: str) -> str:
    diffs: list[str] = re.findall(r"^```diff\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    (diff,) = diffs
    return diff


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package and its cards, with bytecode and machine code: to compile the loops again takes longer than all."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "blendrun", "configs"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("needs a git checkout: clone the repository")
    copied = tmp_path_factory.mktemp("copy")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copied / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copied / name)
    for folder in (ROOT / "blendrun").rglob("__pycache__"):
        if (copied / folder.relative_to(ROOT)).parent.is_dir():
            shutil.copytree(folder, copied / folder.relative_to(ROOT), copy_function=_copy_if_there)
    return copied


def _copy_if_there(source: str, target: str) -> None:
    # Other processes write bytecode meanwhile, under names that do not last.
    with suppress(FileNotFoundError):
        shutil.copy2(source, target)


class Changed:
    """The copy with one change applied."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *words: str | Path) -> str:
        """What a command of the copy prints."""
        return self.python("import sys; from blendrun.cli import main; main(sys.argv[1:])", *words)

    def python(self, code: str, *words: str | Path) -> str:
        """What code prints that imports the copy."""
        command = [sys.executable, "-c", code, *map(str, words)]
        # Files change faster than the time stamps that bytecode goes by.
        env = os.environ | {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def changed(request: pytest.FixtureRequest, copy: Path) -> Iterator[Changed]:
    diff = changes()[request.param]
    _apply(diff, copy)
    yield Changed(copy)
    _apply(diff, copy, "--reverse")


def _apply(diff: str, folder: Path, *options: str) -> None:
    # A folder above may be a repository; the copy is none.
    env = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)}
    command = ["git", "apply", "--verbose", *options, "-"]
    done = subprocess.run(command, cwd=folder, env=env, input=diff, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def with_change(heading: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("changed", [heading], indirect=True)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Six requests, the later the shorter."""
    lines = [{"id": f"r{row}", "prompt_tokens": 900 - 100 * row, "output_tokens": 60 - 10 * row} for row in range(6)]
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_an_addition_touches_few_files() -> None:
    counted = {
        heading: len(set(re.findall(r"^diff --git a/\S+ b/(\S+)$", diff, re.MULTILINE)))
        for heading, diff in changes().items()
    }
    assert counted.keys() == MOST_FILES.keys()
    assert all(0 < counted[heading] <= most for heading, most in MOST_FILES.items()), counted
    table = re.findall(r"^\| \[(.+?)\]\(.*?\) \| (\d) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {heading: int(files) for heading, files in table} == {
        heading[0].lower() + heading[1:]: files for heading, files in counted.items()
    }


@with_change("An order")
def test_an_order(changed: Changed, trace: Path, tmp_path: Path) -> None:
    fed = tmp_path / "fed.txt"
    changed.run("plan", trace, *LLAMA, "--hardware", "a100-80g", "--orders", "sjf", "--order-out", fed)
    assert fed.read_text().split() == [f"r{row}" for row in range(5, -1, -1)]
    # Wherever orders are listed or chosen from, the new one is among them.
    assert "given,shuffled,sorted,lof,blended,sjf" in _unwrapped(changed.run("plan", "--help"))
    assert "lof,sjf,dfs-weight,lpm,gated,blended" in _unwrapped(changed.run("bench", "live", "--help"))
    automatic = "from blendrun.blend.orders import AUTOMATIC; print(*AUTOMATIC)"
    assert changed.python(automatic).split() == ["given", "sorted", "lof", "sjf", "blended"]


@with_change("An endpoint")
def test_an_endpoint(changed: Changed, tmp_path: Path) -> None:
    jobs, output = tmp_path / "jobs.jsonl", tmp_path / "out.jsonl"
    bodies: list[dict[str, Any]] = [{"input": "hello"}, {"input": ["a", "b"]}, {"input": 5}]
    requests = [{"custom_id": f"m{row}", "url": "/v1/moderations", "body": body} for row, body in enumerate(bodies)]
    jobs.write_text("".join(json.dumps(each) + "\n" for each in requests), encoding="utf-8")
    changed.run("run", jobs, "--engine", "replay", "-o", output, "-q", "--errors-ok")
    assert [len(each.results) for each in _moderations(output)] == [1, 2]
    (refused,) = lines_of(tmp_path / "out.jsonl.errors.jsonl")
    assert "`input` must be a text" in refused["error"]["message"]

    plan = json.loads(changed.run("plan", jobs, "--model", "smollm2-135m", "--hardware", "cpu", "--json", "-q"))
    assert (plan["requests"], plan["refused"], plan["output_tokens"]) == (2, 1, 2)

    with _moderating_server() as address:
        changed.run("run", jobs, "--engine", address, "-o", tmp_path / "served.jsonl", "-q", "--errors-ok")
    assert [[result.flagged for result in each.results] for each in _moderations(tmp_path / "served.jsonl")] == [
        [True],
        [True, True],
    ]


def _moderations(output: Path) -> list[ModerationCreateResponse]:
    """The two answers of a run. Of the categories none is there, and the type wants all."""
    return [ModerationCreateResponse.construct(**answer["response"]["body"]) for answer in lines_of(output)]


def _moderating_server() -> AbstractContextManager[str]:
    """The address of a server that finds every input harmful."""

    def answer(_: str, body: Any) -> Any:
        result = {"flagged": True, "categories": {}, "category_scores": {}}
        many = len(body["input"]) if isinstance(body["input"], list) else 1
        return {"id": "x", "model": "guard", "results": [result] * many}

    return answering("guard", answer)


@with_change("An engine")
def test_an_engine(changed: Changed, tmp_path: Path) -> None:
    jobs, output = tmp_path / "jobs.jsonl", tmp_path / "out.jsonl"
    completion = {"custom_id": "c", "url": "/v1/completions", "body": {"prompt": "and so on"}}
    jobs.write_bytes(line("a", "one") + b"\n" + line("b", "two") + b"\n" + json.dumps(completion).encode() + b"\n")
    changed.run("run", jobs, "--engine", "echo", "-o", output, "-q")
    choices = [answer["response"]["body"]["choices"][0] for answer in lines_of(output)]
    assert [each.get("text") or each["message"]["content"] for each in choices] == ["one", "two", "and so on"]
    assert "sglang|replay|echo|URL" in _unwrapped(changed.run("run", "--help"))


@with_change("A chart")
def test_a_chart(changed: Changed, trace: Path, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    changed.run("plan", trace, *LLAMA, "--hardware", "a100-80g", "--orders", "given,sorted", "--report", page)
    text = page.read_text(encoding="utf-8")
    assert '<section id="hits"' in text and "The cache holds the most with " in text
    assert '"hits-0":' in text


@with_change("A hardware card")
def test_a_hardware_card(changed: Changed, trace: Path) -> None:
    # What SGLang keeps free of 24 GB leaves no room for the pool of an 8B.
    small = ("--model", "smollm2-135m", "--lengths", "reference", "-q")
    report = json.loads(changed.run("plan", trace, *small, "--hardware", "a10", "--orders", "given", "--json"))
    assert report["hardware"]["name"] == "a10"
    code = "import sys; from blendrun.cost.hardware import match_hardware; print(*map(match_hardware, sys.argv[1:]))"
    assert changed.python(code, "A10", "A100", "accelerator_type:A10").split() == ["a10", "None", "a10"]


def _unwrapped(text: str) -> str:
    return re.sub(r"\s+", "", text)

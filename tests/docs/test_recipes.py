"""The recipes' commands run as they stand, on the replay engine in place of the model."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import jsonschema
import pytest

from tests.command import blendrun, lines_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
MODEL = ("--model", "smollm2-135m")


def commands(heading: str) -> list[list[str]]:
    """Lines of the shell blocks below a heading, in words, without what calls Python's own -c."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", section, re.DOTALL)).replace("\\\n", " ")
    # A line break within quotes belongs to the word.
    starts = [found.start() for found in re.finditer(r"^(?:blendrun|python) ", blocks, re.MULTILINE)]
    return [shlex.split(blocks[begin:end]) for begin, end in zip(starts, [*starts[1:], len(blocks)], strict=True)]


def run(words: list[str], folder: Path) -> None:
    place = words.index(MODEL[0]) if MODEL[0] in words else len(words)
    assert words[place : place + 2] in ([], list(MODEL))
    engine = ["--engine", "replay"] if words[1] == "run" else []
    done = blendrun(*words[1:place], *words[place + 2 :], *engine, cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


@pytest.mark.parametrize(
    ("heading", "table", "output"),
    [
        ("Label with a schema", "reviews.csv", "labels.csv"),
        ("A model as a judge", "pairs.csv", "verdicts.csv"),
        ("Summarise", "articles.csv", "summaries.csv"),
    ],
)
def test_every_row_of_a_table_is_asked(folder: Path, heading: str, table: str, output: str) -> None:
    run(commands(heading)[0], folder)
    with (ROOT / "examples" / table).open(encoding="utf-8", newline="") as asked, (folder / output).open() as answered:
        rows, answers = list(csv.DictReader(asked)), list(csv.DictReader(answered))
    assert [row["id"] for row in answers] == [row["id"] for row in rows]
    assert all(answer["response"] and not answer["error"] for answer in answers)


@pytest.mark.parametrize("name", ["label.schema.json", "verdict.schema.json"])
def test_a_schema_is_one(name: str) -> None:
    schema = json.loads((ROOT / "examples" / name).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert f"examples/{name}" in PAGE


def test_what_was_cut_is_asked_again_with_more_room(folder: Path) -> None:
    convert, first, select, second = commands("Run again what was cut")
    run(convert, folder)
    run(first, folder)
    run(select, folder)
    run(second, folder)
    # All were, by the replay engine.
    asked, more = lines_of(folder / "longer.jsonl"), int(select[select.index("--max-tokens") + 1])
    assert [request["body"]["max_tokens"] for request in asked] == 3 * [more]
    ids = [answer["custom_id"] for answer in lines_of(folder / "short.jsonl")]
    assert [request["custom_id"] for request in asked] == ids
    assert [answer["custom_id"] for answer in lines_of(folder / "longer-answers.jsonl")] == ids

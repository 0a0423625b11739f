"""Several batches as one job, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blendrun.service.joined import divide, join, place_of

URL = "/v1/chat/completions"


def divided(folder: Path, line: dict[str, Any], url: str = URL) -> Any:
    targets = {0: (folder / "out", folder / "errors")}
    return divide([json.dumps(line).encode()], targets, {0: url})[0]


def test_there_and_back(tmp_path: Path) -> None:
    contents = []
    for place, names in enumerate((["a", "b:c"], ["a"])):
        contents.append((place, tmp_path / f"{place}.jsonl"))
        contents[-1][1].write_text("".join(json.dumps({"custom_id": name}) + "\n\n" for name in names))
    join(contents, tmp_path / "job.jsonl")
    job = [json.loads(line) for line in (tmp_path / "job.jsonl").read_text().splitlines()]
    assert [line["custom_id"] for line in job] == ["0:a", "0:b:c", "1:a"]
    targets = {place: (tmp_path / f"{place}.out", tmp_path / f"{place}.errors") for place in (0, 1)}
    lines = [json.dumps({**line, "error": None}).encode() for line in job]
    parts = divide(lines, targets, dict.fromkeys(targets, URL))
    assert [parts[place].counts.completed for place in (0, 1)] == [2, 1]
    assert [json.loads(line)["custom_id"] for line in targets[0][0].read_text().splitlines()] == ["a", "b:c"]


@pytest.mark.parametrize("name", [None, 7, "", "no place", ":", "٣:a"])
def test_what_is_no_part_of_a_batch_is_nobodys(name: object, tmp_path: Path) -> None:
    assert place_of(name) == -1
    assert divided(tmp_path, {"custom_id": name, "error": {"code": "x"}}).counts.total == 0


@pytest.mark.parametrize("usage", [None, 7, "many", [], {"prompt_tokens": "many"}, {"prompt_tokens_details": [1]}])
def test_whatever_a_server_says_of_its_work(usage: object, tmp_path: Path) -> None:
    line = {"custom_id": "0:a", "response": {"body": {"usage": usage}}, "error": None}
    part = divided(tmp_path, line)
    assert (part.counts.completed, sum(part.usage.values())) == (1, 0)


def test_tokens_are_counted_as_each_endpoint_tells_them(tmp_path: Path) -> None:
    told = {"meta_info": {"prompt_tokens": 5, "cached_tokens": 2, "completion_tokens": 3}, "text": "x"}
    line = {"custom_id": "0:a", "response": {"body": told}, "error": None}
    assert divided(tmp_path, line, "/generate").usage == {"input": 5, "cached": 2, "output": 3}
    told = {"usage": {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}}
    line = {"custom_id": "0:a", "response": {"body": told}, "error": None}
    assert divided(tmp_path, line).usage == {"input": 5, "cached": 2, "output": 3}

"""One engine start serves all feature tests: their requests are lines of one job, run once by the real command."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.runtime import requests
from tests.runtime.fuzzed import fuzzed_job

BLENDRUN = str(Path(sys.executable).with_name("blendrun"))


def blendrun(*arguments: str | Path, timeout: float = 500) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [BLENDRUN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ | {"NO_COLOR": "1"})


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@dataclass(frozen=True)
class FeatureRun:
    """What the command left of the feature job. fuzzed_*: of the lines behind it, which a grammar made."""

    exit_code: int
    stderr: str
    output: Path
    answers: dict[str, dict[str, Any]]
    errors: list[dict[str, Any]]
    fuzzed_answers: dict[str, dict[str, Any]]
    fuzzed_errors: dict[str, dict[str, Any]]

    def body(self, custom_id: str) -> dict[str, Any]:
        """The response body of one request."""
        body: dict[str, Any] = self.answers[custom_id]["response"]["body"]
        return body

    def text(self, custom_id: str, choice: int = 0) -> str:
        text: str = self.body(custom_id)["choices"][choice]["message"]["content"]
        return text

    def error(self, line: int) -> dict[str, Any]:
        """The errors file's record of an input line."""
        return next(record for record in self.errors if record["error"]["line"] == line)


def _fuzzed(record: dict[str, Any]) -> bool:
    return str(record["custom_id"]).startswith("fuzzed ")


def _by_id(records: list[dict[str, Any]], *, fuzzed: bool) -> dict[str, dict[str, Any]]:
    return {record["custom_id"]: record for record in records if _fuzzed(record) is fuzzed}


@pytest.fixture(scope="session")
def feature_run(tmp_path_factory: pytest.TempPathFactory) -> FeatureRun:
    folder = tmp_path_factory.mktemp("features")
    job, output = folder / "job.jsonl", folder / "answers.jsonl"
    job.write_bytes(requests.feature_job() + b"\n".join(fuzzed_job()))
    finished = blendrun("run", job, "--model", "smollm2-135m", "--device", "cpu", "-o", output)
    assert output.exists(), finished.stderr
    answers, errors = read_lines(output), read_lines(Path(f"{output}.errors.jsonl"))
    return FeatureRun(
        exit_code=finished.returncode,
        stderr=finished.stderr,
        output=output,
        answers=_by_id(answers, fuzzed=False),
        errors=[record for record in errors if not _fuzzed(record)],
        fuzzed_answers=_by_id(answers, fuzzed=True),
        fuzzed_errors=_by_id(errors, fuzzed=True),
    )

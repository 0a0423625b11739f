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

BLENDRUN = str(Path(sys.executable).with_name("blendrun"))


def blendrun(*arguments: str | Path, timeout: float = 500) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [BLENDRUN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ | {"NO_COLOR": "1"})


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@dataclass(frozen=True)
class FeatureRun:
    """What the command left of the feature job."""

    exit_code: int
    stderr: str
    output: Path
    answers: dict[str, dict[str, Any]]
    errors: list[dict[str, Any]]

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


@pytest.fixture(scope="session")
def feature_run(tmp_path_factory: pytest.TempPathFactory) -> FeatureRun:
    folder = tmp_path_factory.mktemp("features")
    job, output = folder / "job.jsonl", folder / "answers.jsonl"
    job.write_bytes(requests.feature_job())
    finished = blendrun("run", job, "--model", "smollm2-135m", "--device", "cpu", "-o", output)
    assert output.exists(), finished.stderr
    return FeatureRun(
        exit_code=finished.returncode,
        stderr=finished.stderr,
        output=output,
        answers={record["custom_id"]: record for record in read_lines(output)},
        errors=read_lines(Path(f"{output}.errors.jsonl")),
    )

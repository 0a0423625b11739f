"""One engine start serves all feature tests: their requests are lines of one job, run once by the real command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.command import blendrun, lines_of
from tests.runtime import requests
from tests.runtime.fuzzed import fuzzed_job


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


def run_features(folder: Path) -> FeatureRun:
    """Run the feature job, to its end: however long that takes on a machine that has other work."""
    job, output = folder / "job.jsonl", folder / "answers.jsonl"
    job.write_bytes(requests.feature_job() + b"\n".join(fuzzed_job()))
    # The other core has other tests' work: threads that wait for each other would both wait for it.
    where = ("--model", "smollm2-135m", "--device", "cpu", "--threads", "1", "--verbose")
    finished = blendrun("run", job, *where, "-o", output, process=True)
    assert output.exists(), finished.stderr
    answers, errors = lines_of(output), lines_of(Path(f"{output}.errors.jsonl"))
    return FeatureRun(
        exit_code=finished.returncode,
        stderr=finished.stderr,
        output=output,
        answers=_by_id(answers, fuzzed=False),
        errors=[record for record in errors if not _fuzzed(record)],
        fuzzed_answers=_by_id(answers, fuzzed=True),
        fuzzed_errors=_by_id(errors, fuzzed=True),
    )


def _fuzzed(record: dict[str, Any]) -> bool:
    return str(record["custom_id"]).startswith("fuzzed ")


def _by_id(records: list[dict[str, Any]], *, fuzzed: bool) -> dict[str, dict[str, Any]]:
    return {record["custom_id"]: record for record in records if _fuzzed(record) is fuzzed}

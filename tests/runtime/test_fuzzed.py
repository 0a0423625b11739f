"""What a grammar makes of requests, on the real engine: it lives, and every line has its answer or its error."""

from __future__ import annotations

import orjson
import pytest

from tests.runtime.feature_run import FeatureRun
from tests.runtime.fuzzed import fuzzed_job

pytestmark = pytest.mark.runtime


def test_every_fuzzed_line_is_answered_or_an_error_line_by_the_first_engine(feature_run: FeatureRun) -> None:
    ids = {orjson.loads(line)["custom_id"] for line in fuzzed_job()}
    answered, failed = set(feature_run.fuzzed_answers), set(feature_run.fuzzed_errors)
    assert answered | failed == ids
    assert not answered & failed
    assert len(answered) > 50 and len(failed) > 20, "the grammar no longer tries both"
    summary = orjson.loads((feature_run.output.parent / "answers.jsonl.blendrun" / "summary.json").read_bytes())
    assert summary["restarts"] == []


def test_what_is_refused_is_the_request_s_fault_and_says_why(feature_run: FeatureRun) -> None:
    codes = {"invalid_request", "schema_unsupported", "context_length_exceeded"}
    others = {
        name: record["error"]
        for name, record in feature_run.fuzzed_errors.items()
        if record["error"]["code"] not in codes
    }
    assert not others
    assert all(record["error"]["message"] for record in feature_run.fuzzed_errors.values())


def test_answers_keep_to_their_bound(feature_run: FeatureRun) -> None:
    for record in feature_run.fuzzed_answers.values():
        body = record["response"]["body"]
        assert body["usage"]["completion_tokens"] <= 4 * len(body["choices"])

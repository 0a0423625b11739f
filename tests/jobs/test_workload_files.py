"""Real request files: every line is taken. They lie beside the repository, or the test is skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.job_lines import index
from tests.needs import workload

REQUESTS = {
    "smoke-mix.jsonl": 200,
    "xquad-qa-5lang.jsonl.gz": 5_950,
    "xquad-translate.jsonl.gz": 2_638,
    "mmlu-5shot.jsonl.zst": 14_042,
    "instruct-mix.jsonl.gz": 7_197,
    "squality-long.jsonl.zst": 635,
}


@pytest.mark.parametrize("name", REQUESTS)
def test_every_line_is_accepted(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to(workload(name))
    with index(tmp_path / name) as job:
        assert len(job) == len(job.accepted) == REQUESTS[name]
        last = job.request(len(job) - 1)
        assert "reference_output_tokens" in last.extra["metadata"]
        assert (job.max_new_tokens > 0).all()

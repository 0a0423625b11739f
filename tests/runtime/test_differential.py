"""One list of bodies through blendrun and through SGLang's own server: the same answers, or refusals by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import script

pytestmark = [pytest.mark.runtime, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_no_answer_differs_unless_the_table_says_so(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    done = script("differential.py", "--model", "smollm2-135m", "--write", page)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ")[-1].strip(" |") for line in page.read_text().splitlines() if line.startswith(("| chat", "| comp"))]
    assert len(rows) >= 60
    assert set(rows) == {"same", "named", "done"}
    assert rows.count("same") > 40

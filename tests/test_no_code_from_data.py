"""Nothing that blendrun reads may run as code: what ruff's rules S301, S302, S307 and S506 cannot see."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).resolve().parents[1] / "blendrun").rglob("*.py"))
FORBIDDEN = {
    "pickles": r"^\s*(?:import|from) (?:pickle|cPickle|dill|shelve|marshal|joblib)\b",
    "unpickled arrays": r"allow_pickle\s*=\s*True|np\.load\((?!.*allow_pickle=False)",
    "torch's pickles": r"torch\.load\((?!.*weights_only=True)",
    "a model's own code": r"trust_remote_code\s*[=:]\s*True",
    "a template outside the sandbox": r"(?<!Sandboxed)\bEnvironment\(",
    "modules of the current folder": r"sys\.executable, (?!\"-P\")",
    "a shell": r"shell\s*=\s*True|os\.system\(",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_source_has(what: str) -> None:
    assert len(SOURCES) > 100
    found = [
        f"{path.name}:{number}: {text.strip()}"
        for path in SOURCES
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(FORBIDDEN[what], text)
    ]
    assert not found

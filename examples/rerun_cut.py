"""Lines whose answers were cut at their limit, with a higher one: rerun_cut.py JOBS ANSWERS MAX_TOKENS > LONGER

JOBS and ANSWERS are files of lines, of chat or completions. Then: blendrun run LONGER -o longer-answers.jsonl ...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(jobs: str, answers: str, max_tokens: int) -> None:
    cut = set()
    with Path(answers).open(encoding="utf-8") as lines:
        for answer in map(json.loads, lines):
            choices = (answer["response"] or {}).get("body", {}).get("choices", ())
            if any(choice["finish_reason"] == "length" for choice in choices):
                cut.add(answer["custom_id"])
    with Path(jobs).open(encoding="utf-8") as lines:
        for request in map(json.loads, lines):
            if request["custom_id"] in cut:
                request["body"].pop("max_completion_tokens", None)
                request["body"]["max_tokens"] = max_tokens
                sys.stdout.write(json.dumps(request, ensure_ascii=False) + "\n")
    sys.stderr.write(f"answers that were cut: {len(cut)}\n")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

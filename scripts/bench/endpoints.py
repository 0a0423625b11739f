"""A job of chats, score lines and long stories, mixed: pure prefill beside lines that mostly decode.

Of ten lines four are chats behind one of eight instructions, four have the model score four answers to a question about
a passage (what is read is three quarters passage, and nothing is decoded), and two write a story from one sentence.
`--scale` makes passages and answers shorter alike, for machines that are slow.

    python scripts/bench/endpoints.py /tmp/mixed.jsonl --lines 2000
    blendrun plan /tmp/mixed.jsonl --model llama-3-8b --tokenizer DIR --hardware a100-80g
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

_SENTENCE = (
    "harbour office morning ferry window ticket river stone garden letter engine winter bridge market silver lantern "
    "forest captain paper island copper thunder valley orchard compass village mirror anchor meadow signal"
)
_WORDS = _SENTENCE.split()
_KINDS = ("chat", "score", "chat", "score", "story", "chat", "score", "chat", "score", "story")
# Words of each, before they are scaled: of this vocabulary a word is one or two tokens.
_INSTRUCTION, _QUESTION, _PASSAGE, _ANSWER = 160, 40, 600, 12
_CHAT_TOKENS, _STORY_TOKENS = 80, 800
_INSTRUCTIONS, _OF_A_PASSAGE, _ITEMS = 8, 4, 4
# " yes" and " no" in nobody's vocabulary in particular: any two ids are as good to be scored.
_LABELS = [504, 3575]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shuffled", action="store_true", help="in random order; otherwise kind after kind")
    given = parser.parse_args()
    with given.output.open("w") as file:
        draw = random.Random(given.seed)
        found = lines(given.lines, given.scale, draw)
        if given.shuffled:
            draw.shuffle(found)
        for line in found:
            file.write(json.dumps(line) + "\n")


def lines(count: int, scale: float, draw: random.Random) -> list[dict[str, Any]]:
    """So many request lines, kind after kind: chats, stories, scores."""

    def words(number: int) -> str:
        return " ".join(draw.choices(_WORDS, k=max(3, round(number * scale))))

    def tokens(number: int) -> int:
        """About that many: half of them to one and a half."""
        return max(2, round(number * scale * draw.uniform(0.5, 1.5)))

    instructions = [words(_INSTRUCTION) for _ in range(_INSTRUCTIONS)]
    found: list[dict[str, Any]] = []
    passage, scored = "", 0
    for number in range(count):
        kind = _KINDS[number % len(_KINDS)]
        if kind == "score":
            passage = words(_PASSAGE) if scored % _OF_A_PASSAGE == 0 else passage
            scored += 1
            body: dict[str, Any] = {
                "query": f"{passage}\nQuestion: {words(_QUESTION)}\nAnswer:",
                "items": [f" {words(_ANSWER)}" for _ in range(_ITEMS)],
                "label_token_ids": _LABELS,
            }
            url = "/v1/score"
        else:
            system = [{"role": "system", "content": draw.choice(instructions)}] if kind == "chat" else []
            limit = tokens(_CHAT_TOKENS if kind == "chat" else _STORY_TOKENS)
            body = {
                "messages": [*system, {"role": "user", "content": words(_QUESTION)}],
                "max_tokens": limit,
                "ignore_eos": True,
                "temperature": 0,
            }
            url = "/v1/chat/completions"
        found.append({"custom_id": f"{kind} {number}", "url": url, "body": body})
    return sorted(found, key=lambda line: line["url"] + line["custom_id"].partition(" ")[0])


if __name__ == "__main__":
    main()

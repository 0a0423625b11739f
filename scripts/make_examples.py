"""Write the jobs of examples/. Run after editing the texts below: python scripts/make_examples.py [FOLDER]"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "examples"

SYSTEM = "Answer from the passage alone, in one short sentence. If the passage does not say, answer: not stated."

PASSAGES = {
    "lighthouse": (
        "The lighthouse on Grey Point was lit for the first time in the autumn of 1871. It stands 31 metres above the "
        "high-water mark and its lamp, first fed with rape oil, from 1904 with paraffin, could be seen for seventeen "
        "nautical miles in clear weather. Two keepers and their families lived beside it; the older keeper wound the "
        "clockwork that turned the lens every four hours, the younger one trimmed the wick and kept the log. In the "
        "winter of 1912 a storm carried away the landing stage, and for nine weeks the families lived on flour, salt "
        "fish and the eggs of their own hens. The light was made automatic in 1968; the last keeper, Ann Rudd, left "
        "with her dog on the same boat that had brought her thirty years before. Today the cottages are let to "
        "visitors, and a volunteer opens the tower on the first Sunday of each month from April to October."
    ),
    "orchard": (
        "The orchard behind the mill holds forty-two trees in six rows of seven. The two rows nearest the stream are "
        "pears, because pears bear wet feet better than apples do; the other four are apples, early sorts to the south "
        "and keeping sorts to the north, where the frost comes first and the fruit hangs longest. Picking begins in "
        "the third week of August and is over by All Saints. A good year gives three tonnes of apples and half a tonne "
        "of pears, and about a third of it goes to the press. The press is older than anyone remembers; its screw was "
        "cut from a single ash trunk, and it takes two people to turn it. The juice is sold at the gate on Saturdays. "
        "What is left of the fruit goes to the neighbour's pigs, who pay for it in manure every March."
    ),
    "tram": (
        "Line 7 runs from the river quay to the observatory and climbs 214 metres on the way, which makes it the "
        "steepest tram line in the country that still works without a rack. The cars are short, with all eight wheels "
        "driven, and each has three independent brakes: one electric, one that clamps the wheels and one that presses "
        "magnets on the rail. Until 1959 a second conductor rode on the rear platform with nothing to do but turn the "
        "hand brake. A ride takes nineteen minutes uphill and twenty-two downhill, because the cars may not go faster "
        "than sixteen kilometres an hour on the way down. In snow a car filled with sand goes ahead of the first "
        "service at a quarter past four in the morning. The line carries about eleven thousand people on a working "
        "day and twice as many on the night of the summer fair, when it runs until sunrise."
    ),
}

QUESTIONS = {
    "lighthouse": [
        "When was the light lit for the first time?",
        "How far could the lamp be seen in clear weather?",
        "Who was the last keeper?",
        "What happened in the winter of 1912?",
        "On which days is the tower open?",
    ],
    "orchard": [
        "How many trees are there?",
        "Why do the pears stand nearest the stream?",
        "When does picking begin?",
        "What was the screw of the press made from?",
        "Where does the left-over fruit go?",
    ],
    "tram": [
        "How many metres does the line climb?",
        "How many brakes does a car have?",
        "Why does the ride downhill take longer?",
        "What goes ahead of the first service in snow?",
        "How many people ride on a working day?",
    ],
}

SHORT = [
    "Name three primary colours.",
    "What is the capital of Portugal?",
    "Write the number forty-two in Roman numerals.",
    "Give one word that means the opposite of 'ancient'.",
]

LONG = [
    "Explain step by step how to brew a pot of green tea, and why each step matters.",
    "Write a short story about a clockmaker who repairs a clock that runs backwards.",
    "Describe how a bill becomes a law, for a reader of twelve years.",
    "List the planets of the solar system and say two things about each.",
]

REVIEWS = [
    "The kettle boils fast but the lid came loose in the first week.",
    "Best headphones I have owned; the battery lasts the whole working week.",
    "It arrived late and the colour is not the one on the picture.",
    "Does what it should, nothing more. Fair for the price.",
]

REVIEW_SCHEMA = {
    "type": "object",
    "properties": {
        "sentiment": {"enum": ["positive", "negative", "mixed"]},
        "product": {"type": "string", "maxLength": 30},
    },
    "required": ["sentiment", "product"],
    "additionalProperties": False,
}


def line(custom_id: str, messages: list[dict[str, str]], **body: Any) -> dict[str, Any]:
    content = {"model": "default", "messages": messages, "temperature": 0, **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": content}


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def shared_prefix() -> list[dict[str, Any]]:
    """Five questions a passage, in the worst order: all first questions, then all second ones, and so on."""
    return [
        line(
            f"{name}-{number}",
            [{"role": "system", "content": SYSTEM}, *user(f"{PASSAGES[name]}\n\nQuestion: {QUESTIONS[name][number]}")],
            max_tokens=32,
        )
        for number in range(5)
        for name in PASSAGES
    ]


def short_and_long() -> list[dict[str, Any]]:
    """Answers of a few tokens beside answers of a few hundred."""
    short = [line(f"short-{number}", user(text), max_tokens=24) for number, text in enumerate(SHORT)]
    long = [line(f"long-{number}", user(text), max_tokens=160) for number, text in enumerate(LONG)]
    return [request for pair in zip(short, long, strict=True) for request in pair]


def json_schema() -> list[dict[str, Any]]:
    """Answers forced into a JSON schema."""
    wanted = {"type": "json_schema", "json_schema": {"name": "review", "schema": REVIEW_SCHEMA, "strict": True}}
    return [
        line(
            f"review-{number}",
            user(f"Classify this review as JSON with sentiment and product.\n\n{text}"),
            max_tokens=64,
            response_format=wanted,
        )
        for number, text in enumerate(REVIEWS)
    ]


def bad_lines() -> list[bytes]:
    """One of each mistake between good lines: each becomes a line of the errors file, the good ones are answered."""
    good = line("good-1", user("Say hello."), max_tokens=8)
    broken_schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objet"}}}
    wrong: list[Any] = [
        good,
        b'{"custom_id": "not-json", "url": ',
        b'{"custom_id": "not-utf8 \xff", "url": "/v1/chat/completions"}',
        {key: value for key, value in good.items() if key != "custom_id"},
        {**good, "body": {**good["body"], "max_tokens": 9}},
        {**line("wrong-url", user("Say hello.")), "url": "/v1/imaginary"},
        line("stream", user("Say hello."), stream=True),
        line("prompt-too-long", user("word " * 9000), max_tokens=8),
        line("bad-schema", user("Say hello."), max_tokens=8, response_format=broken_schema),
        line("good-2", user("Say goodbye."), max_tokens=8),
    ]
    return [text if isinstance(text, bytes) else json.dumps(text).encode() for text in wrong]


def main(folder: Path) -> None:
    jobs: dict[str, Sequence[Any]] = {
        "shared-prefix.jsonl": shared_prefix(),
        "short-and-long.jsonl": short_and_long(),
        "json-schema.jsonl": json_schema(),
        "bad-lines.jsonl": bad_lines(),
        "demo.jsonl": [*shared_prefix(), *short_and_long(), *json_schema()],
    }
    for name, lines in jobs.items():
        encoded = [text if isinstance(text, bytes) else json.dumps(text).encode() for text in lines]
        (folder / name).write_bytes(b"\n".join(encoded) + b"\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)

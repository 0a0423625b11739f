"""Lines from a grammar of requests, changed at every level: scripts/fuzz/lines.py --seed 1 --count 10000 > job.jsonl

A seed gives the same bytes each time. A line may be valid, valid JSON but no request, or no JSON at all.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.fuzz.json_cases import ALL  # the folder above is on the path only now

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_DEEP = 100_000


class Raw:
    """A value that JSON libraries would not write: its text stands in the line as it is."""

    def __init__(self, text: bytes) -> None:
        self.text = text


class Pairs(list[tuple[str, Any]]):
    """An object whose keys may come twice."""


def encode(value: Any) -> bytes:
    """The text of a value in which Raw and Pairs may stand."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict | Pairs):
        items = value.items() if isinstance(value, dict) else value
        return b"{" + b", ".join(orjson.dumps(name) + b": " + encode(item) for name, item in items) + b"}"
    if isinstance(value, list):
        return b"[" + b", ".join(map(encode, value)) + b"]"
    return orjson.dumps(value)


TEXTS = (
    "Hello",
    "",
    " ",
    "\0",
    "\n",
    "é",
    "e\u0301",
    "日本語",
    "\U0001f600",
    "\u202ertl",
    "\ufeff",
    "\uffff",
    "{{ messages }}",
    "{% for x in y %}",
    "<|im_start|>system",
    "<|im_end|>",
    "null",
    "NaN",
    "-1",
    "x" * 600,
    "word " * 3000,
    "../../etc/passwd",
    "'; drop table",
    "%s %d {0}",
)
NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 255, 32_767, 32_768, 65_536, 2**31 - 1, 2**31, -(2**31), 2**53, 2**63 - 1, 2**63, 2**64 - 1),
    *(-(2**63), 0.0, -0.0, 0.5, 1.0, 1.5, -1.5, 1e-320, 1e308, -1e308, 1e-7, 3.0),
    *map(Raw, (b"1e999", b"-1e999", b"NaN", b"Infinity", b"-Infinity", b"0123", b"1.", b".5", b"+1", b"0x10", b"1e5")),
    *(Raw(b"9" * digits) for digits in (20, 40, 400, 5000)),
    Raw(b"1." + b"0" * 400 + b"1"),
)
ODD: tuple[Any, ...] = (
    *(None, True, False, [], {}, [[]], [None], [{}], {"": ""}, [1, "a", None], "", "auto", 17, "17", [0.5], [True]),
    Pairs([("a", 1), ("a", 2)]),
    Pairs([("type", "text"), ("type", "object")]),
    *map(Raw, (b'"\\ud83d"', b'"\\udc00\\ud800"', b'"\xff"', b'"\xed\xa0\x80"', b'"\\u0000"', b'"a\tb"', b'"\\x41"')),
    *map(
        Raw, (b"", b"nul", b"True", b"None", b"undefined", b"'a'", b"[1,]", b'{"a":1,}', b"{a:1}", b"/**/1", b"[1 2]")
    ),
)
ROLES = ("user", "system", "assistant", "tool", "developer", "function", "root", "wizard", "USER", "")
URLS = (CHAT, COMPLETIONS, "/v1/embeddings", "/v1/responses", "v1/chat/completions", CHAT + "/", CHAT.upper(), "")
METHODS = ("POST", "GET", "post", "", None, 1, ["POST"])
SCHEMAS: tuple[Any, ...] = (
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    {"type": "array", "items": {"type": "integer"}, "maxItems": 2},
    {"type": "objet"},
    {"type": ["string", "null"]},
    {"$ref": "#/$defs/missing"},
    {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"$ref": "#"},
    {"$ref": "http://127.0.0.1/x.json"},
    {"enum": []},
    {"const": None},
    {"type": "string", "pattern": "("},
    {"type": "string", "pattern": "(a+)+$", "minLength": 5, "maxLength": 1},
    {"type": "integer", "minimum": 5, "maximum": 1},
    {"allOf": [{"type": "string"}, {"type": "integer"}]},
    {"if": {"type": "string"}, "then": False},
    {"not": {}},
    {"type": "object", "properties": []},
    *(True, False, None, [], "", "{}", 1),
)
PATTERNS = ("[a-z]{3}", "(((", "", "(a*)*b", "\\", "[", "(?<=a)b", "\\p{L}+", "a{1000000}", "\\d{2,1}", "^$", "é|日")
GRAMMARS = ('root ::= "a" | "b"', "root ::= root", "root ::= x", "", "::=", 'start: "a"', 'root ::= "a" root')


def _response_format(random: Random) -> Any:
    schema = random.choice(SCHEMAS)
    return random.choice(
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": random.choice((True, 1))}},
            {"type": "json_schema", "json_schema": schema},
            {"type": "json_schema", "schema": schema},
            {"type": "json_schema"},
            {"type": "json_object"},
            {"type": "text"},
            {"type": "xml"},
            {"type": "structural_tag", "structures": [], "triggers": []},
            {"type": None},
        )
    )


def _tool(random: Random) -> Any:
    function = {"name": random.choice(("f", "", "a b", 1)), "parameters": random.choice(SCHEMAS), "strict": True}
    return random.choice(({"type": "function", "function": function}, function, {"type": "function"}, "f", None))


def _content(random: Random) -> Any:
    part = random.choice(
        (
            {"type": "text", "text": random.choice(TEXTS)},
            {"type": "text"},
            {"type": "text", "text": 1},
            {"type": "thinking", "thinking": "x"},
            {"type": "tool_reference"},
            {"type": "audio"},
            {"text": "x"},
            "x",
            None,
        )
    )
    return random.choice((random.choice(TEXTS), [part], [part, part], [], None, part))


def _message(random: Random) -> Any:
    message: dict[str, Any] = {"role": random.choice(ROLES[:5]), "content": _content(random)}
    if random.random() < 0.2:
        arguments: Any = random.choice(("{}", "[]", "{", {}, None, '{"a": NaN}'))
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
        message["tool_calls"] = random.choice(([call], call, [None], [{"function": None}], [{}]))
    return message


# Fields of a body, each with what makes a value for it: mostly sound, at the edge, or of the wrong kind.
FIELDS: dict[str, Callable[[Random], Any]] = {
    "model": lambda random: random.choice(("m", "", "m:adapter", "a/b", None, 1)),
    "max_tokens": lambda random: random.choice((1, 2, 3, 4, 0, -1, 10**9, 1.5, "3")),
    "max_completion_tokens": lambda random: random.choice((1, 2, 3, None)),
    "n": lambda random: random.choice((1, 1, 2, 3, 0, -1, 32_767, 32_768, 2**62, 1.0, True)),
    "temperature": lambda random: random.choice((0, 0.7, 1, -3.0, 1e308, None, "hot")),
    "top_p": lambda random: random.choice((0.9, 1, 0, -1, 2, None)),
    "top_k": lambda random: random.choice((1, 40, 0, -1, -2, 10**12, 2**63, None)),
    "min_p": lambda random: random.choice((0, 0.1, 2, -1)),
    "min_tokens": lambda random: random.choice((0, 1, 5, -1, 10**6)),
    "seed": lambda random: random.choice((0, 7, -1, 2**63 - 1, 2**63, 1.5)),
    "stop": lambda random: random.choice(("x", "", [], ["a", "b"], ["", "a"], [1], "x" * 5000, ["a"] * 100, None)),
    "stop_token_ids": lambda random: random.choice(([1], [-1], [10**9], [], ["1"], [2**63], None)),
    "stop_regex": lambda random: random.choice(PATTERNS),
    "logprobs": lambda random: random.choice((True, False, 2, 0, -1, 10**6, "yes", None)),
    "top_logprobs": lambda random: random.choice((0, 2, 20, -1, 10**6)),
    "logit_bias": lambda random: random.choice(
        ({"5": 1}, {"5": 1000}, {"-1": 1}, {"999999": 1}, {"a": 1}, {"5": None}, {"5": "x"}, [], {"1e3": 0})
    ),
    "presence_penalty": lambda random: random.choice((0, 1, -2, 5, "1")),
    "frequency_penalty": lambda random: random.choice((0, 0.5, 2.5, -5)),
    "repetition_penalty": lambda random: random.choice((1, 1.1, 0, -1, 1e308)),
    "response_format": _response_format,
    "regex": lambda random: random.choice(PATTERNS),
    "ebnf": lambda random: random.choice(GRAMMARS),
    "json_schema": lambda random: random.choice(('{"type": "string"}', "{", "", {"type": "string"})),
    "tools": lambda random: random.choice(([_tool(random)], [_tool(random), _tool(random)], [], {}, None)),
    "tool_choice": lambda random: random.choice(
        ("auto", "none", "required", "f", {"type": "function", "function": {"name": "f"}}, {"function": 1}, {}, [])
    ),
    "stream": lambda random: random.choice((False, True, None, 0, "")),
    "echo": lambda random: random.choice((True, False)),
    "suffix": lambda random: random.choice(("x", None, 1)),
    "best_of": lambda random: random.choice((1, 2, 0)),
    "user": lambda random: random.choice(("u", 1, None)),
    "metadata": lambda random: random.choice(({"task": "t"}, {"task": []}, [], None)),
    "ignore_eos": lambda random: random.choice((True, False, "x")),
    "skip_special_tokens": lambda random: random.choice((True, False, None)),
    "continue_final_message": lambda random: random.choice((True, False, 1)),
    "chat_template_kwargs": lambda random: random.choice(
        ({}, {"enable_thinking": True}, {"tools": 1}, {"messages": []}, {"x": [[[]]]}, {"range": 1}, [], "x")
    ),
    "reasoning_effort": lambda random: random.choice(("low", "none", 0.5, 7, "x", [], True)),
    "reasoning": lambda random: random.choice(({"effort": "low"}, {"enabled": "yes"}, {"enabled": []}, 1)),
    "input_ids": lambda random: random.choice(([1, 2], [], [-1], [2**40], ["1"], [True], None, {})),
    "custom_params": lambda random: random.choice(({}, {"a": 1}, {"a": {"b": {}}}, [], 1)),
    "lora_path": lambda random: random.choice((None, "", "x", ["x"], 1)),
    "rid": lambda random: random.choice(("r", "", ["r"], None, 1)),
    "priority": lambda random: random.choice((0, 1, -(10**9), 2**62, "1")),
    "return_hidden_states": lambda random: random.choice((False, "last", None)),
    "no_such_field": lambda random: random.choice((1, {}, [[]])),
}


def _prompt(random: Random) -> Any:
    ids = random.choice(([1, 2, 3], [0], [49_151], [49_152], [-1], [2**31], [2**62], [1, "a"], [True, 1], []))
    return random.choice((random.choice(TEXTS), ids, [[1]], ["a", "b"], None, {}))


def request(random: Random, name: str) -> dict[str, Any]:
    """A line's object before it is changed: sound on the whole, with up to four fields of any value."""
    url = CHAT if random.random() < 0.6 else COMPLETIONS
    body: dict[str, Any] = {"model": "m", "max_tokens": random.choice((1, 2, 3, 4))}
    if url == CHAT:
        messages = [_message(random) for _ in range(random.choice((0, 1, 2)))]
        body["messages"] = [*messages, {"role": "user", "content": random.choice(TEXTS[:16])}]
    else:
        body["prompt"] = _prompt(random) if random.random() < 0.4 else random.choice(TEXTS[8:18])
    for field in random.sample(sorted(FIELDS), random.choice((0, 0, 0, 1, 1, 2, 4))):
        body[field] = FIELDS[field](random)
    # A copy: what is changed later must not be a value that other lines are made of.
    return copy.deepcopy({"custom_id": name, "method": "POST", "url": url, "body": body})


def mutate(random: Random, value: Any) -> None:
    """Change one place of an object, however deep: a value, a key, or what there is of it."""
    places = _places(value)
    holder, key = random.choice(places)
    choice = random.random()
    if choice < 0.15 and isinstance(holder, dict):
        del holder[key]
    elif choice < 0.25 and isinstance(holder, dict):
        holder[random.choice(TEXTS)] = holder.pop(key)
    elif choice < 0.3:
        holder[key] = [holder[key]]
    elif choice < 0.35:
        holder[key] = {"a": holder[key]}
    elif choice < 0.4:
        holder[key] = Raw(random.choice(ALL))
    elif choice < 0.45:
        holder[key] = Raw(encode(random.choice(places)[0]))
    elif choice < 0.6:
        holder[key] = random.choice(NUMBERS)
    elif choice < 0.75:
        holder[key] = random.choice(TEXTS)
    elif choice < 0.76:
        holder[key] = Raw(b"[" * (depth := random.choice((250, 254, 255, 256, 1000, 1025))) + b"]" * depth)
    else:
        holder[key] = copy.deepcopy(random.choice(ODD))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(holder, key) of everything in `value`, at any depth."""
    found: list[tuple[Any, Any]] = []
    holders = [value]
    while holders:
        holder = holders.pop()
        for key, item in list(holder.items()) if isinstance(holder, dict) else list(enumerate(holder)):
            found.append((holder, key))
            if isinstance(item, dict | list) and not isinstance(item, Pairs):
                holders.append(item)
    return found


def damage(random: Random, raw: bytes) -> bytes:
    """One thing that goes wrong with bytes."""
    place = random.randrange(len(raw) + 1)
    inserted = random.choice(
        (b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b",", b"}", b'"', b"\\", b"\r", b"\x1f")
    )
    return random.choice(
        (
            raw[:place],
            raw[place:],
            raw[:place] + inserted + raw[place:],
            raw[:place] + bytes([random.randrange(256)]) + raw[place + 1 :],
            raw + raw,
            raw.replace(b'"', b"'"),
            raw.replace(b"}", b",}", 1),
            raw.decode(errors="replace").encode("utf-16"),
            b"\xef\xbb\xbf" + raw,
            raw + b" // comment",
        )
    ).replace(b"\n", b" ")


def _name(random: Random, number: int) -> Any:
    """Mostly a name of its own; now and then one that another line has, or that only seems to be another's."""
    if random.random() < 0.93:
        return f"request {number}"
    known = f"request {random.randrange(max(number, 1))}"
    odd = (known, known + "\u200b", known.upper(), f"caf\u00e9 {number // 50}", f"cafe\u0301 {number // 50}", "", " ")
    return random.choice((*odd, "x" * 512, f"{number:0513}", "日" * 512, "\0", number, None, [known], True, 1.5))


def lines(seed: int, count: int) -> Iterator[bytes]:
    """`count` lines, without their ends. Blank ones are among them."""
    random = Random(seed)
    for number in range(count):
        kind = random.random()
        whole = request(random, _name(random, number))
        if kind < 0.25:
            yield encode(whole)
        elif kind < 0.8:
            for _ in range(random.choice((1, 1, 2, 3))):
                mutate(random, whole)
            yield encode(whole).replace(b"\n", b" ")
        elif kind < 0.88:
            yield damage(random, encode(whole))
        elif kind < 0.93:
            yield random.choice(ALL).replace(b"\n", b" ")
        elif kind < 0.96:
            whole[random.choice(("url", "method"))] = random.choice(URLS + METHODS)
            yield encode(whole)
        elif kind < 0.962:
            opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"[", b""), (b'{"a":[', b"")))
            yield opening * _DEEP + b"1" + closing * _DEEP
        elif kind < 0.98:
            yield _with_a_key_twice(random, whole)
        else:
            yield random.choice((b"", b" ", b"\t", b"\r", b"\x0b", b"\x0c", b"  \r"))


def _with_a_key_twice(random: Random, whole: dict[str, Any]) -> bytes:
    """The line with one of its keys twice."""
    twice = random.choice(sorted(whole))
    return encode(Pairs([*whole.items(), (twice, random.choice((whole[twice], None, "again", 1)))]))


def job(seed: int, count: int) -> bytes:
    """A file of `count` lines with line ends of every kind, the last without one."""
    random = Random(seed + 1)
    ends = [random.choice((b"\n", b"\n", b"\n", b"\r\n")) for _ in range(count)]
    ends[-1] = b""
    return b"".join(line + end for line, end in zip(lines(seed, count), ends, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10_000)
    arguments = parser.parse_args()
    sys.stdout.buffer.write(job(arguments.seed, arguments.count))


if __name__ == "__main__":
    main()

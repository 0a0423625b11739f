"""Every method of the installed `sglang.Engine`, and every argument of those we have: taken, or refused by name.

Its source is read, not imported, so that a method which SGLang gains fails here until somebody has decided about it.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import blendrun
from blendrun.errors import UsageError
from blendrun.python_names import ARGUMENTS, ATTRIBUTES
from blendrun.python_requests import EACH, ENCODED, SCORED

# Arguments behind our `**more`.
MORE = {"generate": EACH, "encode": ENCODED, "score": SCORED}


def classes() -> Iterator[ast.ClassDef]:
    """SGLang's class, its base and its mixin."""
    spec = importlib.util.find_spec("sglang")
    if spec is None or spec.origin is None:
        pytest.skip("SGLang is not installed")
    folder = Path(spec.origin).parent / "srt" / "entrypoints"
    for name in ("engine.py", "EngineBase.py", "engine_score_mixin.py"):
        if (path := folder / name).exists():
            for each in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(each, ast.ClassDef) and each.name in ("Engine", "EngineBase", "EngineScoreMixin"):
                    yield each


def functions() -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Public methods by name; the base's stand behind the class's own."""
    found: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
    for holder in classes():
        for part in holder.body:
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and not part.name.startswith("_"):
                found.setdefault(part.name, part)
    return found


def attributes() -> set[str]:
    """Public names that the class, or an object of it, is given values of."""
    found = set[str]()
    for holder in classes():
        for part in ast.walk(holder):
            stored = isinstance(getattr(part, "ctx", None), ast.Store)
            if stored and isinstance(part, ast.Attribute) and ast.unparse(part.value) == "self":
                found.add(part.attr)
        for part in holder.body:
            if isinstance(part, ast.Assign | ast.AnnAssign):
                targets = part.targets if isinstance(part, ast.Assign) else [part.target]
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in found if not name.startswith("_")}


def arguments(name: str) -> list[str]:
    given = functions()[name].args
    return [each.arg for each in (*given.args, *given.kwonlyargs) if each.arg not in ("self", "cls")]


@pytest.fixture(scope="module")
def engine() -> Iterator[blendrun.Engine]:
    with blendrun.Engine("any", options={"engine": "replay"}) as found:
        yield found


def test_every_method_is_there_or_says_what_to_use_instead() -> None:
    ours = {name for name in vars(blendrun.Engine) if not name.startswith("_")}
    assert ours.isdisjoint(ATTRIBUTES)
    assert (functions().keys() | attributes()) - ours - ATTRIBUTES.keys() == set()
    assert "tokenizer_manager" in attributes(), "they are found"


@pytest.mark.parametrize("name", ["generate", "encode", "score"])
def test_every_argument_is_taken_or_says_what_to_use_instead(name: str) -> None:
    ours = [each for each in inspect.signature(getattr(blendrun.Engine, name)).parameters if each != "self"]
    named = ours[:-1]
    theirs = arguments(name)
    assert theirs[: len(named)] == named, "as they come by place"
    assert set(theirs) - {*named, *MORE[name], *ARGUMENTS} == set()
    assert set(MORE[name]).isdisjoint(ARGUMENTS)
    assert arguments(f"async_{name}") == theirs


@pytest.mark.parametrize("name", sorted(ATTRIBUTES))
def test_what_is_not_there(engine: blendrun.Engine, name: str) -> None:
    assert not hasattr(engine, name)
    with pytest.raises(AttributeError, match=f"has no `{name}`: "):
        getattr(engine, name)


def test_what_nobody_has(engine: blendrun.Engine) -> None:
    with pytest.raises(AttributeError, match=r"has no `no_such_thing`$"):
        getattr(engine, "no_such_thing")  # noqa: B009  # mypy would refuse the other way to write it


class Odd:
    """As an array: cannot be compared by `==`."""

    def __eq__(self, _: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"image_data": Odd()}, "does not take image_data: .*Engine.chat"),
        ({"priority": 0}, "does not take priority: the plan decides"),
        ({"session_params": {"id": "x"}}, "does not take session_params: give the whole prompt"),
        ({"no_such": None}, r"does not take no_such$"),
    ],
)
def test_arguments_that_are_not_taken(engine: blendrun.Engine, arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        engine.generate("a", **arguments)


def test_defaults_of_theirs_say_nothing(engine: blendrun.Engine) -> None:
    silent: dict[str, Any] = {
        "image_data": None,
        "stream": False,
        "return_hidden_states": False,
        "routed_experts_start_len": 0,
    }
    assert engine.generate("a", {"max_new_tokens": 1}, **silent)["text"]


def test_server_args_are_given_by_name() -> None:
    with pytest.raises(UsageError, match="server_args is not taken: give its fields by name"):
        blendrun.Engine("any", server_args=object())


def test_vectors_with_their_arguments(engine: blendrun.Engine) -> None:
    assert "embedding" in engine.encode("a", image_data=None)
    with pytest.raises(UsageError, match="encode does not take rid: answers stand in the order"):
        engine.encode("a", rid="x")
    with pytest.raises(UsageError, match="encode takes texts or token ids"):
        engine.encode([{"text": "a"}])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="lora_path: 1 for 2 prompts"):
        engine.encode(["a", "b"], lora_path=["x"])


def test_scores(engine: blendrun.Engine) -> None:
    found = engine.score("Is it warm?", [" yes", " no"], [5, 6], True)
    assert [len(row) for row in found.scores] == [2, 2]
    assert found.prompt_tokens > 0
    assert found.token_logprobs is None
    with pytest.raises(UsageError, match="score does not take embed_override_token_id"):
        engine.score("a", ["b"], [5], embed_override_token_id=7)
    with pytest.raises(blendrun.RequestsFailedError, match="temperature"):
        engine.score("a", ["b"], [5], temperature=2.0)

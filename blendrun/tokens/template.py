"""A chat template, rendered as transformers does it (utils/chat_template_utils.py), without transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

ContentFormat = Literal["string", "openai"]

# Names of apply_chat_template's own parameters: SGLang hands a request's `chat_template_kwargs` to that function.
_TAKEN = frozenset(
    (
        "self",
        "conversation",
        "messages",
        "conversations",
        "tools",
        "tokenize",
        "add_generation_prompt",
        "return_dict",
        "chat_template",
    )
)
_SWALLOWED = (
    "padding",
    "truncation",
    "max_length",
    "return_tensors",
    "return_assistant_tokens_mask",
    "tokenizer_kwargs",
    "continue_final_message",
    "documents",
)
_MEDIA_WORDS = ("image", "audio", "video", "vision")
# Variables that SGLang (0.5.23, jinja_template_utils.py) looks for as "for … in message.content".
_MESSAGE_NAMES = ("message", "msg", "m")


class RenderError(Exception):
    """This request cannot be rendered; the runtime would refuse it too. The message is for people."""


class ChatTemplate:
    """One compiled template.

    source: its text.
    content_format: whether it reads a message's content as a list of parts ("openai") or as one string.
    uses_today: its text depends on the day it is rendered.
    reranks: it asks whether a document answers a query, with "yes" or "no" (SGLang's serving_rerank.py).
    low_effort: it takes `low_effort` where a request says reasoning_effort "low" (SGLang's template_detection.py).
    """

    def __init__(self, source: str) -> None:
        """Raises jinja2.TemplateError where it does not compile."""
        environment = _environment()
        self.source = source
        self.content_format = detect_content_format(source, environment)
        self.reranks = is_reranker(source)
        self.uses_today = uses_today(source)
        self.low_effort = "low_effort" in source and "truncate_history_thinking" in source
        self._compiled = environment.from_string(source)
        # Jinja keeps them as a ChainMap, and copies that at every rendering: a fifth of the time.
        self._compiled.globals = dict(self._compiled.globals)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any],
    ) -> str:
        """The prompt up to where the assistant begins to write.

        variables: special tokens and `chat_template_kwargs`.

        Raises RenderError.
        """
        given = dict(variables)
        if taken := sorted(_TAKEN & given.keys()):
            raise RenderError(f"chat_template_kwargs cannot set {', '.join(taken)}")
        if given.get("continue_final_message"):
            raise RenderError("chat_template_kwargs cannot set continue_final_message; it is a field of the body")
        documents = given.get("documents")
        for name in _SWALLOWED:
            given.pop(name, None)
        given |= {"messages": messages, "documents": documents, "add_generation_prompt": True}
        try:
            return self._compiled.render(given, tools=tools)
        except Exception as first:  # a template may raise anything; SGLang catches all here too
            if not tools:
                raise _refused(first) from first
        # Some templates (Mistral's) take functions without OpenAI's wrapper; SGLang then tries these.
        try:
            return self._compiled.render(given, tools=[tool.get("function", tool) for tool in tools])
        except Exception as second:
            raise _refused(second) from second


def detect_content_format(source: str, environment: jinja2.Environment | None = None) -> ContentFormat:
    """What SGLang (jinja_template_utils.py:detect_jinja_template_content_format) takes the template for."""
    if any(word in source for word in _MEDIA_WORDS):
        return "openai"
    try:
        tree = (environment or _environment()).parse(source)
    except jinja2.TemplateError:
        return "string"
    loops = (loop.iter for loop in tree.find_all(nodes.For))
    return "openai" if any(_is_content(node) for node in loops) else "string"


def is_reranker(source: str) -> bool:
    """Whether a template asks of a query and a document for "yes" or "no": its model then scores pairs by those two."""
    text = source.lower()
    return "answer can only be" in text and '"yes"' in text and '"no"' in text


def reads_tools(source: str) -> bool | None:
    """Whether a template looks at the tools of a request; None where it does not compile."""
    try:
        names = meta.find_undeclared_variables(_environment().parse(source))
    except jinja2.TemplateError:
        return None
    return "tools" in names


def _is_content(node: nodes.Node | None) -> bool:
    """Whether `node` is message.content or message['content'], perhaps filtered, tested or sliced."""
    if isinstance(node, nodes.Filter | nodes.Test):
        return node.node is not None and _is_content(node.node)
    if isinstance(node, nodes.Getitem):
        if isinstance(node.arg, nodes.Slice):
            return _is_content(node.node)
        return _is_message(node.node) and isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    return isinstance(node, nodes.Getattr) and node.attr == "content" and _is_message(node.node)


def _is_message(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.ctx == "load" and node.name in _MESSAGE_NAMES


def _refused(error: Exception) -> RenderError:
    # A template may quote the whole request.
    return RenderError(f"the chat template refuses it: {str(error)[:300] or type(error).__name__}")


def _environment() -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class _GenerationTag(Extension):
    """`{% generation %}` marks what the assistant wrote, for training; here it is only its content.

    A call block as in transformers, so that variables set inside stay inside.
    """

    tags = {"generation"}  # noqa: RUF012  # jinja's own interface

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    def _content(self, caller: Macro) -> str:
        return caller()


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML, which no model was trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def uses_today(source: str) -> bool:
    """Whether a template's text depends on the day it is rendered."""
    return "strftime_now" in source

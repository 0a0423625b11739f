"""All that is done with the bytes of one line before an engine sees it, with what must hold of the outcome."""

from __future__ import annotations

import orjson
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from blendrun.endpoints.registry import ENDPOINTS
from blendrun.errors import ErrorCode, LineError
from blendrun.jobs.line import RequestLine, canonical_body, parse_line
from blendrun.store.failures import kind_of
from blendrun.tokens.encode import Encoder
from blendrun.tokens.template import ChatTemplate, RenderError
from blendrun.tokens.tokenizer import PromptTokenizer
from blendrun.tokens.traits import traits

# Reads what templates of real models read: roles, parts, tools, calls and variables.
_TEMPLATE = """\
{%- if tools %}{{ tools | tojson(indent=2) }}{% endif -%}
{%- for message in messages -%}
<{{ message.role }}>
{%- if message.content is string %}{{ message.content | trim }}
{%- else %}{% for part in message.content %}{{ part.type }}:{{ part.text }}{% endfor %}{% endif -%}
{%- for call in message.tool_calls or [] %}{{ call.function.name }}({{ call.function.arguments | tojson }}){% endfor -%}
{%- endfor -%}
{%- if enable_thinking %}<think>{% endif %}{{ reasoning_effort }}<assistant>"""


def _tokenizer() -> PromptTokenizer:
    backend = Tokenizer(WordLevel({"<unk>": 0, "Hello": 1}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    return PromptTokenizer(Encoder(backend), ChatTemplate(_TEMPLATE), "", {"bos_token": "<s>"}, {}, "0" * 32)


_TOKENIZER = _tokenizer()


def read(raw: bytes) -> None:
    """Raises AssertionError, or whatever else a line must not raise."""
    try:
        request = parse_line(raw)
    except LineError as error:
        assert error.code in (ErrorCode.INVALID_JSON, ErrorCode.INVALID_REQUEST), error.code
        _check_message(error.message)
        orjson.dumps(error.custom_id)
        return
    _check_request(request)
    try:
        prompt = _TOKENIZER.render(request.endpoint, request.body)
    except RenderError as error:
        _check_message(str(error))
        return
    traits(request, request.endpoint.demand(request.body).max_new_tokens or 0, prompt.media)
    (ids,) = _TOKENIZER.encode([prompt])
    assert ids.dtype == "int32", ids.dtype


def _check_request(request: RequestLine) -> None:
    """What the index and the feeder do with it; a line that is written back says the same."""
    assert request.endpoint.demand(request.body).choices >= 1
    assert request.endpoint.prompt_characters(request.body) >= 0
    head = orjson.dumps({"custom_id": request.custom_id, "url": request.endpoint.url})
    again = head[:-1] + b',"body":' + canonical_body(request.body) + b"}"
    # The digest is of the line as it was written, in whatever spelling; what is asked is the same.
    assert parse_line(again).body == request.body
    assert request.endpoint.url in ENDPOINTS


def _check_message(message: str) -> None:
    """A sentence for the errors file and for the log: not empty, not a page, and valid Unicode."""
    assert 0 < len(message) < 1000, len(message)
    orjson.dumps(message)
    assert kind_of(message)

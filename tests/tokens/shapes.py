"""Chat templates in the style of well-known models, and bodies of every shape that rendering distinguishes."""

from __future__ import annotations

from typing import Any

LLAMA_STYLE = """\
{{- bos_token }}
{%- if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}
{%- if not tools_in_user_message is defined %}{% set tools_in_user_message = true %}{% endif %}
{%- if not tools is defined %}{% set tools = none %}{% endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|im_start|>system\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{% endif %}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- system_message }}
{{- "<|im_end|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length == 0 %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
    {%- endif %}
    {{- '<|im_start|>user\\n\\n' -}}
    {{- "Given the following functions, please respond with a JSON for a function call.\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- messages[0]['content']|trim + "<|im_end|>" }}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|im_start|>' + message['role'] + '\\n\\n'+ message['content'] | trim + '<|im_end|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|im_start|>assistant\\n\\n{"name": "' + tool_call.name + '", "parameters": ' }}
        {{- tool_call.arguments | tojson }}{{- "}<|im_end|>" }}
    {%- else %}
        {{- "<|im_start|>ipython\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|im_end|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n\\n' }}{% endif %}
"""

QWEN_STYLE = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}{{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if message.role == "user" and message.content is string %}
        {%- set ns.last_query_index = index %}{%- break %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = message.reasoning_content if message.reasoning_content is string else '' %}
        {%- if loop.index0 > ns.last_query_index and reasoning %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {%- generation %}{{- '<|im_start|>assistant\\n' + content }}{%- endgeneration %}
        {%- endif %}
        {%- for tool_call in message.tool_calls or [] %}
            {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
            {%- if tool_call.arguments is string %}{{- tool_call.arguments }}
            {%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + content + '\\n</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""

# Lists of parts stay lists, and whole messages are printed: the order of their keys shows.
PARTS_STYLE = """\
{{ bos_token }}{% for message in messages %}
{{ message | tojson }}
{% if message.content is string %}
[{{ message.content }}]
{% else %}
{% for part in message.content %}
{{ '<image>' if part.type == 'image' else part.text }}
{% endfor %}
{% endif %}
{% endfor %}
{{ tools | tojson }} {{ reasoning_effort | default('unset') }} {{ thinking | default('unset') }}
"""

# Takes bare functions only, and insists on turns.
STRICT_STYLE = """\
{%- if tools %}{% for tool in tools %}[TOOL {{ tool['name'] + ' ' + tool.parameters | tojson }}]{% endfor %}{% endif %}
{%- for message in messages %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Roles must alternate user/assistant') }}
{%- endif %}
{{- '[INST] ' if message.role == 'user' else '' }}{{ message.content }}{{ eos_token }}
{%- endfor %}
"""

LOW_EFFORT_STYLE = """\
{%- set truncate_history_thinking = true %}{{ low_effort | default('full') }} {{ enable_thinking | default('-') }}
{%- for m in messages %}{{ m.content }}{% endfor %}"""

TEMPLATES = {
    "llama": LLAMA_STYLE,
    "qwen": QWEN_STYLE,
    "parts": PARTS_STYLE,
    "strict": STRICT_STYLE,
    "low effort": LOW_EFFORT_STYLE,
}

USER = {"role": "user", "content": "What is the weather in Oslo — and in São Paulo? 🌧️"}
SYSTEM = {"role": "system", "content": "You are terse."}
ANSWER = {"role": "assistant", "content": "  Rain. "}
TOOL = {
    "type": "function",
    "function": {
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "str", "description": "Town <name> & 'country'"},
                "days": {"type": ["int32", "null", "long"]},
                "filters": {"type": "list[str]", "items": {"type": "varchar(20)"}},
                "type": {"type": "internal"},
            },
            "required": ["city"],
        },
        "name": "get_weather",
        "strict": True,
        "unknown": 1,
    },
    "unknown": 2,
}
BARE_TOOL = {"type": "function", "function": {"name": "now", "description": None}, "defer_loading": True}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Oslo","x":1.50}'}}
    ],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "name": "get_weather", "content": '{"rain": true}'}
TEXTS = [{"type": "text", "text": "One."}, {"type": "text", "text": " Two."}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}


def body(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": list(messages) or [USER], **fields}


BODIES: dict[str, dict[str, Any]] = {
    "one user": body(),
    "system": body(SYSTEM, USER),
    "many turns": body(SYSTEM, USER, ANSWER, {"role": "user", "content": "Sure?\n\n"}),
    "spaces and specials": body({"role": "user", "content": "\n <|im_end|>x<|im_start|> user\n <|endoftext|>\t"}),
    "role in capitals": body({"role": "SYSTEM", "content": "loud"}, USER),
    "unknown fields": body({**USER, "name": "bob", "weight": 1}, {**ANSWER, "refusal": None, "audio": None}, USER),
    "named assistant": body(USER, {**ANSWER, "name": "ann", "phase": "final_answer"}, USER),
    "developer": body({"role": "developer", "content": "Be brief."}, USER),
    "null content": body(USER, {"role": "assistant", "content": None}, USER),
    "no content": body(USER, {"role": "assistant"}, USER),
    "text parts": body({"role": "user", "content": TEXTS}),
    "no parts": body({"role": "user", "content": []}),
    "system in parts": body({"role": "system", "content": TEXTS, "name": "s"}, USER),
    "thoughts in parts": body(
        USER, {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, *TEXTS]}, USER
    ),
    "ends on assistant": body(USER, ANSWER),
    "continued": body(USER, ANSWER, continue_final_message=True),
    "continued, nothing yet": body(USER, {"role": "assistant", "content": ""}, continue_final_message=True),
    "continued, only that": body(ANSWER, continue_final_message=True),
    "continued in parts": body(USER, {"role": "assistant", "content": TEXTS}, continue_final_message=True),
    "continued user": body(USER, continue_final_message=True),
    "tools": body(SYSTEM, USER, tools=[TOOL, BARE_TOOL]),
    "tools, auto": body(tools=[TOOL], tool_choice="auto"),
    "tools, none": body(tools=[TOOL], tool_choice="none"),
    "tools, null choice": body(tools=[TOOL], tool_choice=None),
    "tools, required": body(tools=[TOOL], tool_choice="required"),
    "tools, one named": body(
        tools=[TOOL, BARE_TOOL], tool_choice={"type": "function", "function": {"name": "get_weather"}}
    ),
    "tools, empty": body(tools=[]),
    "tool call": body(USER, CALL, RESULT, tools=[TOOL]),
    "tool call, result in parts": body(USER, CALL, {**RESULT, "content": TEXTS}),
    "tool call, then question": body(USER, CALL, RESULT, ANSWER, USER, tools=[TOOL]),
    "tool call, arguments as object": body(
        USER, {**CALL, "tool_calls": [{"function": {"name": "now", "arguments": {"a": [1, "é"]}}}]}, RESULT
    ),
    "tool call, bad arguments": body(
        USER, {**CALL, "tool_calls": [{"function": {"name": "now", "arguments": "{oops"}}]}, RESULT
    ),
    "tools of a message": body({**SYSTEM, "tools": [TOOL]}, USER),
    "tools of a message and a body": body({**SYSTEM, "tools": [TOOL]}, USER, tools=[BARE_TOOL]),
    "reasoning content": body(USER, {**ANSWER, "reasoning_content": "Clouds."}, USER),
    "effort low": body(reasoning_effort="low"),
    "effort none": body(reasoning_effort="none"),
    "effort a number": body(reasoning_effort=0.5),
    "effort, kwargs win": body(reasoning_effort="low", chat_template_kwargs={"reasoning_effort": "high"}),
    "effort in kwargs": body(chat_template_kwargs={"reasoning_effort": "low", "x": 1}),
    "reasoning object": body(reasoning={"effort": "high"}),
    "reasoning enabled": body(reasoning={"enabled": "yes"}),
    "reasoning disabled": body(reasoning={"enabled": False}),
    "thinking off": body(chat_template_kwargs={"enable_thinking": False}),
    "thinking off despite effort": body(reasoning_effort="high", chat_template_kwargs={"enable_thinking": False}),
    "kwargs empty": body(chat_template_kwargs={}),
    "kwargs take bos": body(chat_template_kwargs={"bos_token": "<bos>"}),
    "kwargs clash": body(chat_template_kwargs={"messages": []}),
    "kwargs swallowed": body(chat_template_kwargs={"max_length": 5, "documents": None}),
    "ids": body(input_ids=[5, 6, 7]),
    "wrong role": body({"role": "wizard", "content": "Hm."}),
    "wrong part": body({"role": "user", "content": [{"type": "smell"}]}),
    "wrong effort": body(reasoning_effort="vast"),
    "user without content": body({"role": "user"}),
}

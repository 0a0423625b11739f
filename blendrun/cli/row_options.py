"""Options that say how rows of tables become requests, for every command that reads jobs."""

from __future__ import annotations

from typing import Annotated

from blendrun.cli.panels import Panel

PromptColumn = Annotated[
    str | None,
    Panel.ROWS.option(metavar="NAME", help="Column with the prompt. Default: prompt, problem, question, ..."),
]
MessagesColumn = Annotated[
    str | None,
    Panel.ROWS.option(metavar="NAME", help="Column with a conversation (OpenAI's or ShareGPT's)."),
]
ImageColumn = Annotated[str | None, Panel.ROWS.option(metavar="NAME", help="Column with pictures for the prompt.")]
IdColumn = Annotated[
    str | None,
    Panel.ROWS.option(metavar="NAME", help="Column with the custom_id. Default: row-N, by the row's number."),
]
SystemPrompt = Annotated[str | None, Panel.ROWS.option(metavar="TEXT", help="System message of every row's request.")]
PromptTemplate = Annotated[
    str | None,
    Panel.ROWS.option(metavar="TEXT", help="Prompt with {{ column }}; [[DOCUMENT]] is the prompt column."),
]
MaxTokens = Annotated[
    int | None, Panel.ROWS.option(min=1, max=2**31 - 1, metavar="N", help="Most tokens of each answer.")
]
Temperature = Annotated[
    float | None, Panel.ROWS.option(min=0, max=100, metavar="T", help="Sampling temperature of the answers.")
]
SchemaFile = Annotated[str | None, Panel.ROWS.option(metavar="FILE", help="JSON schema that each answer must match.")]

"""`blendrun.Engine`: in the place of `sglang.Engine`, with every call planned and the engine warm between calls.

with blendrun.Engine("smollm2-135m") as engine:
    for answer in engine.generate(["The capital of France is", "1, 2, 3,"], {"temperature": 0, "max_new_tokens": 8}):
        print(answer["text"])
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import orjson

from blendrun.backends.host import Ended, Host
from blendrun.backends.options import RunArguments, RunOptions
from blendrun.errors import EXIT_OK, EXIT_SOME_LINES_FAILED, BlendrunError, ErrorCode, UsageError
from blendrun.python_logprobs import parted, put_together
from blendrun.python_names import missing
from blendrun.python_requests import (
    CHAT,
    EMBEDDINGS,
    GENERATE,
    SCORE,
    Answer,
    ScoreResult,
    answers_in,
    encodings_of,
    line_of,
    placed,
    requests_of,
    score_in,
    score_of,
)
from blendrun.scratch import Scratch
from blendrun.store.folder import StateFolder
from blendrun.store.journal_tail import JournalTail
from blendrun.store.summary import read as read_summary
from blendrun.turn import Caller, Turn, this_caller

_LOOK_S = 0.02


class RequestsFailedError(BlendrunError):
    """Some requests of a call have an error instead of an answer; all others were answered.

    answers: in the order of the requests, with {"error": {"code", "message"}} in the place of those that failed.
    """

    exit_code = EXIT_SOME_LINES_FAILED

    def __init__(self, message: str, answers: list[Answer]) -> None:
        super().__init__(message, answers)
        self.answers = answers

    def __str__(self) -> str:
        return str(self.args[0])


class Engine:
    """One model, loaded with the first call and kept until `shutdown`. Calls from several threads take turns.

    Each call is a job of its own, as `blendrun run` has them: read, planned, fed, recovered where the engine dies. It
    runs in a process of its own, so a call works in a notebook, in a thread and beside a running event loop, and an
    interrupt ends the engine with the call.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str] | None = None,
        *,
        options: RunArguments | None = None,
        **engine_args: Any,
    ) -> None:
        """model_path: alias, hub id, folder or GGUF file; not needed where options name servers. engine_args: SGLang's
        own. options: of a run, such as {"order": "sorted", "threads": 2}; its files are not among them.

        Raises UsageError for options that there are not.
        """
        if "server_args" in engine_args:
            raise UsageError("server_args is not taken: give its fields by name, as Engine(model_path=…, tp_size=2)")
        if (model := engine_args.pop("model", None)) is not None and model_path is None:
            model_path = model
        self._given: dict[str, Any] = {"errors_ok": True, **(options or {})}
        if model_path is not None:
            self._given["model"] = os.fspath(model_path)
        elif "engine" not in self._given:
            raise UsageError('which model? blendrun.Engine("smollm2-135m")')
        self._given["engine_args"] = {**self._given.get("engine_args", {}), **engine_args}
        self._scratch = Scratch.make()
        self._host = Host()
        self._calls, self._turn = 0, Turn()
        self._finalizer = weakref.finalize(self, _end, self._host, self._scratch)
        try:
            self._options(Path("job"), Path("answers"))
        except BaseException:
            self._finalizer()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def shutdown(self) -> None:
        """End the engine and all its processes. Any later call raises UsageError."""
        self._finalizer()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Raises AttributeError; on what `sglang.Engine` has, with what to use instead."""
            raise AttributeError(missing(name), name=name, obj=self)

    def generate(
        self,
        prompt: str | Sequence[str] | None = None,
        sampling_params: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        input_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
        **more: Any,
    ) -> Any:
        """As `sglang.Engine.generate`: a dict for one prompt, a list in their order for several (or for n > 1, the
        answers to a prompt side by side).

        more: `return_logprob`, `logprob_start_len`, `top_logprobs_num`, `token_ids_logprob`, `return_text_in_logprobs`
        and `lora_path`, one for all or a list.

        Raises RequestsFailedError where a request cannot be answered, once all others are; UsageError for arguments
        that do not fit together; what `blendrun.run` raises.
        """
        bodies, single = requests_of(prompt, sampling_params, input_ids, more)
        asked, sources = parted(bodies)
        found = self._answers([(GENERATE, body) for body in asked])
        if again := put_together(found, sources):
            for place, answer in zip(again, self._answers([(GENERATE, bodies[place]) for place in again]), strict=True):
                found[place] = answer
        _check(found)
        outputs = [each for answer in found for each in answer.get("outputs", [answer])]
        return outputs[0] if single and len(outputs) == 1 else outputs

    def chat(self, messages: Sequence[Mapping[str, Any]] | Sequence[Sequence[Mapping[str, Any]]], **fields: Any) -> Any:
        """The answer to a conversation, or a list of them to several: bodies of OpenAI's chat completions.

        fields: of each request (`max_tokens`, `temperature`, `response_format`, ...). Raises as `generate`.
        """
        single = bool(messages) and isinstance(messages[0], Mapping)
        chats: Any = [messages] if single else messages
        found = self._run([(CHAT, {**fields, "messages": list(chat)}) for chat in chats])
        return found[0] if single else found

    def encode(self, prompt: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]], **more: Any) -> Any:
        """As `sglang.Engine.encode`: `embedding` and `meta_info` of a text or token ids, or of several.

        more: `dimensions`, `lora_path`. The model has to be one for embeddings. Raises as `generate`.
        """
        bodies, single = encodings_of(prompt, more)
        found = self._run([(EMBEDDINGS, body) for body in bodies])
        vectors = [
            {"embedding": each["data"][0]["embedding"], "meta_info": {"prompt_tokens": each["usage"]["prompt_tokens"]}}
            for each in found
        ]
        return vectors[0] if single else vectors

    def score(
        self,
        query: str | Sequence[int] | None = None,
        items: str | Sequence[str] | Sequence[Sequence[int]] | None = None,
        label_token_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
        apply_softmax: bool = False,
        item_first: bool = False,
        **more: Any,
    ) -> ScoreResult:
        """As `sglang.Engine.score`: how likely each label is behind the query and each item.

        more: `temperature`, `return_token_logprobs`, `return_pooled_hidden_states`. Raises as `generate`.
        """
        asked = {"label_token_ids": label_token_ids, "apply_softmax": apply_softmax, "item_first": item_first}
        (found,) = self._run([(SCORE, score_of(query, items, asked | more))])
        return score_in(found)

    def stream(self, requests: Iterable[str | Mapping[str, Any]]) -> Iterator[tuple[int, Answer]]:
        """Place and answer of each request, in the order in which they finish; {"error": ...} for one that failed.

        requests: texts, bodies with `text` or `input_ids` (SGLang's) or `messages` (a chat), or whole lines with `url`
        and `body`.
        """
        return self._stream(requests, None, threading.Event())

    def _stream(
        self, requests: Iterable[str | Mapping[str, Any]], reader: Caller | None, unwanted: threading.Event
    ) -> Generator[tuple[int, Answer]]:
        """reader: who may not wait for this stream's end; None for whoever calls. unwanted: ends it."""
        lines = [line_of(request) for request in requests]
        with self._turn.taken(unwanted, reader):
            folder = self._folder()
            try:
                for found in self._finishing(lines, folder, unwanted):
                    self._turn.reader = reader or this_caller()
                    yield found
                    self._turn.reader = reader
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    async def async_generate(self, *args: Any, **kwargs: Any) -> Any:
        """`generate` beside a running event loop."""
        return await self._beside(self.generate, *args, **kwargs)

    async def async_chat(self, *args: Any, **kwargs: Any) -> Any:
        """`chat` beside a running event loop."""
        return await self._beside(self.chat, *args, **kwargs)

    async def async_encode(self, *args: Any, **kwargs: Any) -> Any:
        """`encode` beside a running event loop."""
        return await self._beside(self.encode, *args, **kwargs)

    async def async_score(self, *args: Any, **kwargs: Any) -> ScoreResult:
        """`score` beside a running event loop."""
        found: ScoreResult = await self._beside(self.score, *args, **kwargs)
        return found

    async def _beside(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._turn.refuse_reader()
        return await asyncio.to_thread(call, *args, **kwargs)

    async def async_stream(self, requests: Iterable[str | Mapping[str, Any]]) -> AsyncIterator[tuple[int, Answer]]:
        """`stream` beside a running event loop."""
        self._turn.refuse_reader()
        unwanted, loop = threading.Event(), asyncio.get_running_loop()
        answers = self._stream(requests, this_caller(), unwanted)
        # A thread of its own: calls that wait for their turn may have all that the loop has.
        with ThreadPoolExecutor(1, "blendrun-answers") as own:
            try:
                while (found := await loop.run_in_executor(own, next, answers, None)) is not None:
                    yield found
            finally:
                unwanted.set()
                await loop.run_in_executor(own, answers.close)

    def _run(self, lines: list[tuple[str, Answer]]) -> list[Answer]:
        """Bodies of the answers, in order. Raises RequestsFailedError."""
        found = self._answers(lines)
        _check(found)
        return found

    def _answers(self, lines: list[tuple[str, Answer]]) -> list[Answer]:
        """The same, with {"error": ...} for those that failed."""
        if not lines:
            return []
        with self._turn.taken():
            folder = self._folder()
            try:
                output = folder / "answers.jsonl"
                refused = self._written(lines, folder)
                if len(refused) < len(lines):
                    self._settle(self._host_run(folder, output), output)
                return answers_in(output, len(lines), refused)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _host_run(self, folder: Path, output: Path) -> Ended:
        try:
            return self._host.run(self._options(folder / "job.jsonl", output))
        except KeyboardInterrupt:
            # The engine was stopped in the middle of it; nothing of it is to stay.
            self._host.end_process()
            raise

    def _finishing(
        self, lines: list[tuple[str, Answer]], folder: Path, unwanted: threading.Event
    ) -> Iterator[tuple[int, Answer]]:
        output, ended = folder / "answers.jsonl", list[Ended | BaseException]()
        refused = self._written(lines, folder)
        if len(refused) == len(lines):
            yield from refused.items()
            return
        tail, given = JournalTail(StateFolder(output).journal, errors=True), set[int]()

        # Not the thread's own end: an interrupt in `join` takes it for dead while it still runs (Python 3.11).
        finished = threading.Event()

        def work() -> None:
            try:
                ended.append(self._host.run(self._options(folder / "job.jsonl", output)))
            except BaseException as error:  # noqa: BLE001  # raised below, where the caller is
                ended.append(error)
            finally:
                finished.set()

        threading.Thread(target=work, name="blendrun-stream", daemon=True).start()
        try:
            while not unwanted.is_set():
                done = finished.is_set()
                for text in tail.new():
                    place, answer = placed(text)
                    given.add(place)
                    yield place, answer
                if done:
                    break
                finished.wait(_LOOK_S)
        except KeyboardInterrupt:
            self._host.end_process()
            raise
        finally:
            told = False
            while not finished.wait(_LOOK_S if not told else None):
                # Whoever took the answers wants no more of them.
                told = self._host.stop_run()
        if unwanted.is_set():
            return
        if isinstance(ended[0], BaseException):
            raise ended[0]
        self._settle(ended[0], output)
        # Lines that no engine was asked.
        for place, answer in enumerate(answers_in(output, len(lines), refused)):
            if place not in given:
                yield place, answer

    def _folder(self) -> Path:
        """A new one. Raises UsageError behind `shutdown`."""
        if not self._finalizer.alive:
            raise UsageError("this blendrun.Engine was shut down: make a new one")
        self._calls += 1
        folder = self._scratch.path / str(self._calls)
        folder.mkdir()
        return folder

    def _written(self, lines: list[tuple[str, Answer]], folder: Path) -> dict[int, Answer]:
        """By place, what those are answered that no line can hold."""
        refused: dict[int, Answer] = {}
        with (folder / "job.jsonl").open("wb") as file:
            for place, (url, body) in enumerate(lines):
                line = {"custom_id": str(place), "method": "POST", "url": url, "body": body}
                try:
                    file.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
                except orjson.JSONEncodeError as error:
                    message = f"the request cannot be written as JSON: {error}"
                    refused[place] = {"error": {"code": str(ErrorCode.INVALID_REQUEST), "message": message}}
        return refused

    def _options(self, job: Path, output: Path) -> RunOptions:
        if taken := {"inputs", "output", "shard", "limit"} & self._given.keys():
            raise UsageError(f"options: {', '.join(sorted(taken))} belong to a run of files (blendrun.run)")
        return RunOptions.of({**self._given, "inputs": (str(job),), "output": output})

    def _settle(self, ended: Ended, output: Path) -> None:
        """Raises what a run raises that ends so."""
        if ended.exit_code not in (EXIT_OK, EXIT_SOME_LINES_FAILED):
            raise _KINDS.get(ended.exit_code, BlendrunError)(ended.message)
        summary = read_summary(StateFolder(output).summary)
        if summary is not None and summary.plan is not None and self._given.get("overlap") is None:
            # The engine that is there has this mode; another plan's would be another engine.
            self._given["overlap"] = str(summary.plan.overlap)


def _check(found: list[Answer]) -> None:
    """Raises RequestsFailedError."""
    failed = [place for place, answer in enumerate(found) if "error" in answer and len(answer) == 1]
    if failed:
        first = found[failed[0]]["error"]
        what = f"{len(failed):,} of {len(found):,} requests failed; request {failed[0]}: {first['message']}"
        raise RequestsFailedError(what, found)


def _end(host: Host, scratch: Scratch) -> None:
    host.close()
    scratch.remove()


def _kinds(base: type[BlendrunError]) -> Iterator[type[BlendrunError]]:
    for kind in base.__subclasses__():
        yield from _kinds(kind)
        yield kind


_KINDS = {kind.exit_code: kind for kind in _kinds(BlendrunError) if kind is not RequestsFailedError}

"""A model's own processor, in a process of its own: what it puts in a prompt in the place of pictures of given sizes.

The process (`python -m blendrun.models.processor FOLDER ARGUMENTS`) imports torch and transformers; the module does
not. No picture is decoded: the processor is given blank ones. A folder's own code is never run.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

Sizes = tuple[tuple[int, int], ...]

# Seconds: of imports on a busy machine, of one answer, and after which a process that nobody asks goes.
_START_S, _ANSWER_S, _IDLE_S = 120.0, 60.0, 60.0
# Of all pictures of a prompt; what is larger is not asked for. A blank one takes 3 bytes a pixel, and 12 once scaled.
_MOST_PIXELS = 64 << 20
# Some processors scale the shorter side to a length: of a line of pixels the longer one would fill any memory.
_THINNEST = 200
_ANSWER_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Placeholders:
    """What a processor looks for and what it writes. place: stands in a prompt where a picture comes. mark: the token
    that it becomes, many times over."""

    place: str
    mark: str


@dataclass(eq=False)
class Processor:
    """The processor of a model folder. It is started by the first question, and asked once about the same sizes.

    images: what it is given beside pictures, JSON text of an object.
    """

    folder: Path
    images: str = "{}"
    _process: subprocess.Popen[bytes] | None = None
    _placeholders: Placeholders | None = None
    _failed: bool = False
    _known: dict[Sizes, tuple[str, ...] | None] = field(default_factory=dict)

    def placeholders(self) -> Placeholders | None:
        """None where there is no such processor, or none that can be loaded here."""
        if self._placeholders is None and not self._failed:
            self._start()
        return self._placeholders

    def texts(self, sizes: Sizes) -> tuple[str, ...] | None:
        """What comes in the places of pictures (width, height) of one prompt; None where the processor refuses them."""
        if sizes not in self._known:
            self._known[sizes] = self._ask(sizes)
        return self._known[sizes]

    def _ask(self, sizes: Sizes) -> tuple[str, ...] | None:
        if self._failed or sum(width * height for width, height in sizes) > _MOST_PIXELS:
            return None
        if any(min(size) < 1 or max(size) > _THINNEST * min(size) for size in sizes):
            return None
        for _ in range(2):
            if self._process is None or self._process.poll() is not None:
                self._start()
            # It may have gone because nobody asked, just now: then once more.
            if self._failed or (answer := self._told(orjson.dumps(sizes), _ANSWER_S)) is not None:
                break
        else:
            answer = None
        texts = None if self._failed or answer is None else answer.get("texts")
        valid = isinstance(texts, list) and len(texts) == len(sizes) and all(isinstance(text, str) for text in texts)
        return tuple(texts) if valid and texts else None

    def _start(self) -> None:
        package_root = str(Path(__file__).resolve().parents[2])
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH")))),
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
        }
        # -P: a file called torch.py in the user's folder is none of our business.
        command = [sys.executable, "-P", "-m", __name__, str(self.folder.resolve()), self.images]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        try:
            self._process = subprocess.Popen(command, env=environment, **pipes)  # type: ignore[call-overload]
        except OSError:
            self._failed = True
            return
        said = self._told(b"", _START_S) or {}
        place, mark = said.get("place"), said.get("mark")
        if isinstance(place, str) and isinstance(mark, str) and place and mark:
            self._placeholders = Placeholders(place, mark)
        else:
            self._failed = True
            self._end()

    def _told(self, question: bytes, seconds: float) -> Mapping[str, Any] | None:
        """The answer's object; None, and no process any more, where there is none in time."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return None
        try:
            if question:
                process.stdin.write(question + b"\n")
                process.stdin.flush()
            said = orjson.loads(_line(process.stdout.fileno(), seconds))
        except (OSError, ValueError):
            said = None
        if isinstance(said, dict):
            return said
        self._end()
        return None

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _line(descriptor: int, seconds: float) -> bytes:
    """One line of a pipe. Raises ValueError where it does not come in time, is cut short or too long."""
    found, until = b"", time.monotonic() + seconds
    with selectors.DefaultSelector() as ready:
        ready.register(descriptor, selectors.EVENT_READ)
        while not found.endswith(b"\n"):
            if len(found) > _ANSWER_BYTES or not ready.select(max(0.0, until - time.monotonic())):
                raise ValueError("no answer")
            if not (piece := os.read(descriptor, 1 << 16)):
                raise ValueError("cut short")
            found += piece
    return found


def main(folder: str, images: str) -> None:
    """The process: a line about itself, then an answer for each line of sizes, until nobody asks."""
    # Whatever a library prints is not an answer.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    processor = load(Path(folder))
    words = placeholders_of(processor)
    answers.write(orjson.dumps({"place": words.place, "mark": words.mark}) + b"\n")
    with selectors.DefaultSelector() as ready:
        ready.register(0, selectors.EVENT_READ)
        while ready.select(_IDLE_S) and (line := sys.stdin.buffer.readline()):
            try:
                said = {"texts": texts_of(processor, orjson.loads(line), orjson.loads(images))}
            except Exception as error:  # noqa: BLE001  # whatever it refuses these sizes with
                said = {"refused": [type(error).__name__, str(error)[:300]]}
            answers.write(orjson.dumps(said) + b"\n")


def load(folder: Path) -> Any:
    """transformers' processor of a folder, as the engine has it. Raises what transformers raises."""
    from transformers import AutoProcessor

    processor: Any = AutoProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    _as_the_engine_has_it(processor, folder)
    return processor


def placeholders_of(processor: Any) -> Placeholders:
    mark = processor.tokenizer.convert_ids_to_tokens(processor.image_token_ids[0])
    return Placeholders(processor.image_token, mark)


def texts_of(processor: Any, sizes: Sequence[Sequence[int]], images: dict[str, Any]) -> list[str]:
    """What a processor puts in the places of pictures (width, height) of one prompt. images: its arguments for them."""
    from PIL import Image

    blank = [Image.new("RGB", (width, height)) for width, height in sizes]
    text = processor.image_token * len(blank)
    given = {"images_kwargs": images} if images else {}
    made = processor(text=[text], images=blank, return_text_replacement_offsets=True, **given)
    return [place["replacement"] for place in made["text_replacement_offsets"][0]]


def _as_the_engine_has_it(processor: Any, folder: Path) -> None:
    """SGLang (0.5.23, multimodal/processors/pixtral.py) takes these of the model, not of the processor's file."""
    config = orjson.loads((folder / "config.json").read_bytes())
    vision = config.get("vision_config") or {}
    if vision.get("model_type") == "pixtral":
        processor.patch_size = vision.get("patch_size", processor.patch_size)
        merged = vision.get("spatial_merge_size", config.get("spatial_merge_size", 1))
        if merged > 1:
            processor.spatial_merge_size = merged


if __name__ == "__main__":
    main(*sys.argv[1:])

"""lm-evaluation-harness's `sglang` model class on five-shot MMLU: `sglang.Engine`, and `blendrun.Engine` in its place.

    pip install lm_eval
    python scripts/bench/harness.py mmlu-5shot.jsonl.zst [--key FOLDER] [--subjects 4] [--questions 24] [--rounds 1]

MMLU: lines of OpenAI's Batch API, each with a five-shot prompt, as ../shared/workloads has them. key: CSV files of the
questions, first column, and their answers, last column; without it the score is the share of A. Of a few subjects, so
that prompts begin alike as they do in the whole test. First so many questions by the log likelihoods of A, B, C and D,
then as many others by written answers; all of one kind are one call (`batch_size=auto`). Seconds are those of the
calls, with the engine loaded before. Each engine is a process of its own. On the CPU both have blendrun's arguments
there, since SGLang's own do not run.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import zstandard

from blendrun.engine.base import EngineSettings
from blendrun.engine.settings import available_cores, detect_platform, environment, server_args
from blendrun.models.resolve import resolve_model

_ENGINES = ("sglang", "blendrun")
_LETTERS, _CONTEXT = "ABCD", 8192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mmlu", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--questions", type=int, default=24, help="of each kind")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--engine", choices=_ENGINES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.engine:
        _measure(asked.engine, asked.model, asked.mmlu)
        return
    platform = detect_platform()
    path = str(resolve_model(asked.model, platform=platform).path)
    settings = EngineSettings(path, platform, available_cores(), server_args={"log_level": "error"})
    with tempfile.TemporaryDirectory(prefix="blendrun-harness-") as folder:
        questions = list(_questions(asked))
        for place, kind in enumerate(("choices", "written")):
            part = questions[place * asked.questions : (place + 1) * asked.questions]
            (Path(folder) / f"{kind}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in part))
        job = {"kwargs": server_args(settings) if platform == "cpu" else None}
        (Path(folder) / "job.json").write_text(json.dumps(job))
        print("| round | engine | choices: score | s | tokens cached | written: score | s | load |\n|" + "---|" * 8)
        for turn in range(asked.rounds):
            for engine in _ENGINES if turn % 2 == 0 else reversed(_ENGINES):
                env = environment(settings) if engine == "sglang" and platform == "cpu" else {}
                found = _run([*sys.argv, "--engine", engine], path, folder, env)
                _print(turn, engine, found)


def _questions(asked: argparse.Namespace) -> Iterator[dict[str, str]]:
    """Prompts of the first subjects that the file has, in its order, each with the letter of its answer."""
    subjects, wanted, key = list[str](), 2 * asked.questions, dict[str, dict[str, str]]()
    with zstandard.open(asked.mmlu, "rt", encoding="utf-8") as file:
        for text in file:
            line = json.loads(text)
            subject, prompt = line["custom_id"].split("-")[1], line["body"]["messages"][0]["content"]
            if subject not in subjects:
                if len(subjects) >= asked.subjects:
                    continue
                subjects.append(subject)
                key[subject] = {} if asked.key is None else _key(asked.key, subject)
            question = prompt.rpartition("\n\n")[2].partition("\nA. ")[0]
            yield {"prompt": prompt, "answer": key[subject][question] if key[subject] else "A"}
            wanted -= 1
            if not wanted:
                return
    sys.exit(f"{asked.subjects} subjects have fewer than {2 * asked.questions} questions")


def _key(folder: Path, subject: str) -> dict[str, str]:
    """Letters by question; a file has letters, or numbers from 0."""
    with (folder / f"{subject}_test.csv").open(newline="") as file:
        rows = [row for row in csv.reader(file) if row[-1] in (*_LETTERS, *"0123")]
    return {row[0].strip(): row[-1] if row[-1] in _LETTERS else _LETTERS[int(row[-1])] for row in rows}


def _run(command: list[str], model: str, folder: str, env: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, command[0], folder, "--model", model, *command[-2:]]
    more = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": f"{folder}/datasets", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=os.environ | env | more, capture_output=True, text=True, check=False)
    found = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        sys.exit((done.stdout + done.stderr)[-4000:])
    result: dict[str, Any] = found[0]
    return result


_FIRST: dict[str, Any] = {}


def _print(turn: int, engine: str, found: dict[str, Any]) -> None:
    choices, written = found["choices"], found["written"]
    cells = [turn, engine, f"{choices['score']:.4f}", f"{choices['seconds']:.1f}", f"{choices['cached']:,}"]
    cells += [f"{written['score']:.4f}", f"{written['seconds']:.1f}", f"{os.getloadavg()[0]:.1f}"]
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
    if not _FIRST:
        _FIRST.update(found)
        return
    pairs = zip(choices["values"], _FIRST["choices"]["values"], strict=True)
    apart = [abs(one - other) for one, other in pairs]
    same = sum(one == other for one, other in zip(written["values"], _FIRST["written"]["values"], strict=True))
    mean, equal = sum(choices["values"]) / len(apart), sum(each == 0 for each in apart)
    print(f"\n{equal} of {len(apart)} log likelihoods (mean {mean:.4f}) are those of the first row to the last bit,")
    print(f"and none differs by more than {max(apart):.2g}; {same} of {len(written['values'])} answers are the same\n")


def _measure(engine: str, model: str, folder: Path) -> None:
    """In a process of its own: the harness on one engine."""
    simple_evaluate: Any = import_module("lm_eval.evaluator").simple_evaluate
    sglang_causallms: Any = import_module("lm_eval.models.sglang_causallms")
    kwargs = json.loads((folder / "job.json").read_text())["kwargs"]
    sglang_causallms.sgl = SimpleNamespace(Engine=_plain(kwargs) if engine == "sglang" else _ours())
    made = sglang_causallms.SGLangLM(pretrained=model, batch_size="auto", dtype="auto" if kwargs is None else "float32")
    generate, seconds, cached = made.model.generate, [0.0], [0]

    def timed(*args: Any, **more: Any) -> Any:
        begun = time.monotonic()
        answers = generate(*args, **more)
        seconds[0] += time.monotonic() - begun
        cached[0] += sum(answer["meta_info"]["cached_tokens"] for answer in answers)
        return answers

    # Loads ours, and whatever is done once.
    prompts = [[*range(300, 400), end] for end in (5, 6)]
    for more in ({"return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 2}, {}):
        generate(input_ids=prompts, sampling_params={"temperature": 0, "max_new_tokens": 4}, **more)
    made.model.generate = timed
    found = {}
    for kind in ("choices", "written"):
        seconds[0], cached[0] = 0.0, 0
        told = simple_evaluate(model=made, tasks=[_task(kind, folder)], bootstrap_iters=0, log_samples=True)
        samples = sorted(told["samples"][f"mmlu_{kind}"], key=lambda sample: sample["doc_id"])
        values = [sample["resps"] for sample in samples]
        flat = [value[0][0] for each in values for value in each] if kind == "choices" else values
        (score,) = (value for name, value in told["results"][f"mmlu_{kind}"].items() if name in _SCORES)
        found[kind] = {"score": score, "seconds": seconds[0], "cached": cached[0], "values": flat}
    print("RESULT " + json.dumps(found), flush=True)
    made.model.shutdown()


_SCORES = ("acc,none", "exact_match,none")


def _task(kind: str, folder: Path) -> dict[str, Any]:
    """One of the harness's own tasks; the five shots stand in the prompt."""
    task = {
        "task": f"mmlu_{kind}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{kind}.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "num_fewshot": 0,
    }
    if kind == "written":
        metric = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
        until = {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}
        taken = {"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
        more = {"output_type": "generate_until", "generation_kwargs": until, "filter_list": [taken]}
    else:
        metric = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
        more = {"output_type": "multiple_choice", "doc_to_choice": list(_LETTERS)}
    return task | more | {"metric_list": [metric]}


def _plain(kwargs: dict[str, Any] | None) -> Any:
    """SGLang's own engine; with blendrun's arguments of it on the CPU."""
    # Before SGLang: what it imports of SGLang's is less then.
    if kwargs is not None:
        import_module("blendrun.engine.cpu.lean")
    engine: Any = import_module("sglang.srt.entrypoints.engine").Engine
    return lambda **given: engine(**(given if kwargs is None else kwargs))


def _ours() -> Any:
    """As docs/python.md has it."""
    from transformers import AutoTokenizer

    import blendrun

    class Engine(blendrun.Engine):
        def __init__(self, model_path: str, dtype: str = "auto", **_: Any) -> None:
            super().__init__(model_path, dtype=dtype)
            tokenizer = AutoTokenizer.from_pretrained(model_path)
            self.tokenizer_manager = SimpleNamespace(tokenizer=tokenizer, context_len=_CONTEXT)

    return Engine


if __name__ == "__main__":
    main()

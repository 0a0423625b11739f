"""Whether a later job is to join one that runs: worked out in a process of its own, at the lowest priority.

`python -m blendrun.backends.joining` reads an `Asked` from its standard input and writes a `Joining`, both as JSON.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np

from blendrun.backends.machines import machines_of
from blendrun.backends.options import RunOptions
from blendrun.backends.planning import PlanOptions
from blendrun.backends.speed import taught
from blendrun.blend.orders import AUTOMATIC
from blendrun.cost.detect import own_hardware
from blendrun.endpoints.adapters import declared_adapters
from blendrun.engine.orphans import end_with_parent
from blendrun.engine.settings import available_cores
from blendrun.engine.sizes import limits_to_plan
from blendrun.errors import BlendrunError, UsageError
from blendrun.events import ignore
from blendrun.jobs.source import open_sources
from blendrun.names import DeviceName, EngineName, Overlap
from blendrun.planner.joining import Joining, joining
from blendrun.planner.plan import Choice, cost_structure, make_structure
from blendrun.planner.workload import Wanted, load_workload
from blendrun.scratch import scratch_folder
from blendrun.tree.small import run_small

# Of the machine's time, as little as may be: a job runs on it.
_NICE = 19
# Who waits longer for an answer does better to let the second job wait for its turn.
_MOST_S = 900.0


class Asked(msgspec.Struct, frozen=True):
    """plan: options, with both files as its inputs. later: custom_ids of the second job begin with one of these.

    cpu: whether the engine is on the CPU though there is a GPU. threads: of an engine there.
    """

    plan: PlanOptions
    later: tuple[str, ...]
    cpu: bool
    threads: int


def asked_of(options: RunOptions, first: Path, second: Path, later: tuple[str, ...]) -> Asked | None:
    """For runs with these options; None where nothing can be said of them: of servers, and of several engines."""
    if options.engine != EngineName.SGLANG or options.model is None or (options.replicas or 1) > 1 or options.ray:
        return None
    given = {
        "inputs": (str(first), str(second)),
        "model": str(options.model),
        "tp": options.tp,
        "engine_args": options.engine_args,
        "orders": AUTOMATIC if options.order is None else (options.order,),
        "overlap": options.overlap,
        "endpoint": options.endpoint,
    }
    plan = PlanOptions.of({name: value for name, value in given.items() if value is not None})
    return Asked(plan, later, options.device is DeviceName.CPU, options.threads or available_cores())


def start(asked: Asked) -> subprocess.Popen[bytes]:
    """The process that works it out. Raises OSError."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "blendrun.backends.joining"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None, "a pipe was asked for"
    process.stdin.write(msgspec.json.encode(asked, enc_hook=str))
    process.stdin.close()
    return process


def answer_of(process: subprocess.Popen[bytes]) -> Joining | None:
    """What it found; None where it found nothing, or took too long. Waits for its end."""
    try:
        with process:
            assert process.stdout is not None, "a pipe was asked for"
            process.wait(_MOST_S)
            return msgspec.json.decode(process.stdout.read(), type=Joining)
    except (subprocess.TimeoutExpired, msgspec.DecodeError):
        return None
    finally:
        process.kill()


def work_out(asked: Asked) -> Joining:
    """Raises BlendrunError for what cannot be planned."""
    options = asked.plan
    (on,) = machines_of(own_hardware("cpu") if asked.cpu else None, None, options.devices)
    adapters = declared_adapters(options.engine_args.get("lora_paths")) or None
    wanted = Wanted(str(options.model), endpoint=options.endpoint, adapters=adapters, arguments=options.engine_args)
    with scratch_folder("plan") as spool:
        workload = load_workload(open_sources(options.inputs, spool, listener=ignore), wanted, ignore)
        prompts = workload.prompts
        later = np.array([workload.name(number).startswith(asked.later) for number in range(len(prompts))], dtype=bool)
        if not later.any() or later.all():
            raise UsageError("one of the two jobs has nothing to plan")
        limits = limits_to_plan("cpu" if on.card.kind == "cpu" else "gpu", options.arguments)
        on = taught(on, workload.model.card, workload.model_name, options.arguments, ignore, threads=asked.threads)

        def planned() -> Joining:
            structure = make_structure(prompts, workload.model, options.lengths)
            costed = cost_structure(structure, workload.model.card, on, limits=limits)
            # An engine that is there has its mode; of two plans on one mode the difference is what counts.
            return joining(costed, later, Choice(options.orders, (options.overlap or Overlap.EXCLUSIVE,)))

        return run_small(len(prompts), planned)


def main() -> None:
    end_with_parent()
    os.nice(_NICE)
    try:
        found = work_out(msgspec.json.decode(sys.stdin.buffer.read(), type=Asked))
    except BlendrunError as error:
        raise SystemExit(str(error)) from error
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()

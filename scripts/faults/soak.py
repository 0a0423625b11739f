"""Kill -9 a run at random moments, resume it each time, and check that nothing is lost, changed or done twice.

python scripts/faults/soak.py --kills 50
python scripts/faults/soak.py --kills 5 --engine sglang --lines 40
python scripts/faults/soak.py --chaos --rounds 200

--chaos: kills, signals, full disks, servers that misbehave and die, other replicas and limits at each resume, at random
(chaos.py).

A job is run to its end under kills, then another one begins, until there were enough kills. What dies is the process
that owns the files, alone; with a real engine sometimes a process of the engine instead. Prints a table; exit code
1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

from chaos import chaos
from soak_job import Broken, Invocation, Kill, SoakJob, moment_of

# How a run is killed: what it waits for first, and how often.
MOMENTS = {"start": 2, "answers": 6, "write": 2}


def soak(job: SoakJob, chance: random.Random, left: int) -> list[Kill]:
    """Kill and resume one job until it is finished or there were `left` kills; then finish it and check the end."""
    kills: list[Kill] = []
    answered = False
    while len(kills) < left and not answered:
        # Once more where only the writing is left, and then another job.
        answered = len(job.kept) == job.good
        run = Invocation(job)
        moment = moment_of(job, chance, {"start": 1} if answered else MOMENTS)
        try:
            kill = run.kill(moment, chance, engine=job.real and chance.random() < 0.4)
        finally:
            run.process.kill()
        if kill is None:
            break
        job.check_after_a_kill()
        kills.append(kill)
    job.finish()
    return kills


def table(kills: list[Kill]) -> str:
    """Kills by what died and when: how many, answers on disk at that time, seconds until no process was left."""
    groups: dict[tuple[str, str], list[Kill]] = defaultdict(list)
    for kill in kills:
        groups[kill.victim, kill.phase].append(kill)
    rows = [
        "| killed | in phase | kills | answers on disk then | seconds until nothing of it ran (most) |",
        "|---|---|---|---|---|",
    ]
    for (victim, phase), those in sorted(groups.items()):
        answers = [kill.answers for kill in those]
        span = f"{min(answers)} to {max(answers)}" if min(answers) < max(answers) else f"{answers[0]}"
        rows.append(f"| {victim} | {phase} | {len(those)} | {span} | {max(kill.gone for kill in those):.2f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--engine", choices=("replay", "sglang"), default="replay")
    parser.add_argument("--lines", type=int, default=2000, help="Good lines of a job; a few bad ones come on top.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chaos", action="store_true", help="All kinds of faults; on the replay engine and servers.")
    parser.add_argument("--rounds", type=int, default=200, help="Invocations of --chaos.")
    asked = parser.parse_args()
    # Told to stop, it leaves no run behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if asked.chaos:
        sys.exit(chaos(asked.rounds, asked.seed))
    kills: list[Kill] = []
    chance, jobs, begun = random.Random(asked.seed), 0, time.monotonic()
    with TemporaryDirectory(prefix="blendrun-soak-") as folder:
        while len(kills) < asked.kills:
            job = SoakJob(Path(folder) / f"job {jobs}", asked.engine, asked.lines)
            try:
                kills += soak(job, chance, asked.kills - len(kills))
            except Broken as broken:
                print(f"{broken}\n\nThe last words of the run:\n{job.last_words()}", file=sys.stderr)
                sys.exit(1)
            jobs += 1
            print(f"{len(kills)} of {asked.kills} kills", file=sys.stderr, flush=True)
    seconds = time.monotonic() - begun
    print(f"{len(kills)} kills, {jobs} jobs of {asked.lines + job.bad} lines, {asked.engine}, {seconds:.0f} s\n")
    print(table(kills))
    print("\nlines out + error lines = lines in, no answer twice, none changed, none of those on disk run again: kept")


if __name__ == "__main__":
    main()

"""The batch files under a real single-node Slurm of Debian's packages: slurmctld, slurmd and munge, as root."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.command import COMMAND, blendrun, ids, write_jobs
from tests.needs import needs

BATCH = Path(__file__).parents[2] / "scripts" / "slurm"
_DAEMONS = ("munged", "slurmctld", "slurmd")
# Debian puts daemons where only root looks.
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def missing() -> str | None:
    if os.geteuid() != 0:
        return needs("root", "a Slurm of one's own takes a user who may start its daemons")
    lacking = [name for name in (*_DAEMONS, "sbatch") if shutil.which(name, path=_PATH) is None]
    return needs(f"Slurm ({', '.join(lacking)})", "apt-get install slurm-wlm") if lacking else None


@pytest.mark.parametrize("name", sorted(path.name for path in BATCH.glob("*.sbatch")))
def test_the_batch_files_are_valid_shell(name: str) -> None:
    subprocess.run(["bash", "-n", BATCH / name], check=True)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def wait_for(what: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.2)
    return False


class Slurm:
    """One node, in a folder of its own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.environment = os.environ | {"PATH": f"{Path(COMMAND).parent}:{_PATH}"}
        self.environment |= {"SLURM_CONF": str(folder / "slurm.conf")}
        munge = folder / "munge"
        munge.mkdir(mode=0o755)
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o400)
        host = socket.gethostname()
        (folder / "slurm.conf").write_text(
            f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={munge}/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=1,sched_interval=1
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE OverSubscribe=NO State=UP
"""
        )
        for name in ("state", "spool"):
            (folder / name).mkdir()
        self._start(
            stack,
            *("munged", "-F", "--key-file", munge / "key", "--socket", munge / "socket"),
            *("--pid-file", munge / "pid", "--log-file", munge / "log", "--seed-file", munge / "seed", "--force"),
        )
        assert wait_for((munge / "socket").exists, 20)
        self._start(stack, "slurmctld", "-D")
        self._start(stack, "slurmd", "-D")
        assert wait_for(lambda: self.say("sinfo", "-h", "-o", "%t") in ("idle", "mix"), 60), self.logs()

    def _start(self, stack: ExitStack, *command: str | Path) -> None:
        log = stack.enter_context((self.folder / f"{command[0]}.out").open("wb"))
        found = shutil.which(str(command[0]), path=_PATH)
        assert found is not None
        process = subprocess.Popen([found, *command[1:]], env=self.environment, stdout=log, stderr=log)

        def end() -> None:
            process.terminate()
            try:
                process.wait(timeout=600)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

        stack.callback(end)

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log"))

    def say(self, *command: str | Path, **variables: str) -> str:
        done = subprocess.run(
            command,
            env=self.environment | variables,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() or done.stderr.strip()

    def submit(self, *options: str | Path, **variables: str) -> str:
        """The job's number."""
        number = self.say("sbatch", "--parsable", "--output", f"{self.folder}/%x-%A_%a.out", *options, **variables)
        assert number.isdigit(), number
        return number

    def states(self, job: str) -> list[str]:
        shown = self.say("scontrol", "-o", "show", "job", job)
        return [word.partition("=")[2] for word in shown.split() if word.startswith("JobState=")]

    def ended(self, job: str, seconds: float = 90) -> list[str]:
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        assert wait_for(lambda: bool(self.states(job)) and all(state in over for state in self.states(job)), seconds), (
            self.states(job),
            self.logs(),
        )
        return self.states(job)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with ExitStack() as stack:
        yield Slurm(tmp_path_factory.mktemp("slurm"), stack)


def test_an_array_of_shards_and_the_merge_behind_it(slurm: Slurm, tmp_path: Path) -> None:
    jobs, out = write_jobs(tmp_path / "jobs.jsonl", 60), tmp_path / "out.jsonl"
    variables = {"JOBS": str(jobs), "OUT": str(out), "SHARDS": "3"}
    array = slurm.submit("--array=1-3", BATCH / "array.sbatch", "--engine", "replay", **variables)
    merge = slurm.submit(f"--dependency=afterany:{array}", BATCH / "merge.sbatch", OUT=str(out))
    assert slurm.ended(array) == ["COMPLETED"] * 3
    assert slurm.ended(merge) == ["COMPLETED"]
    assert ids(out) == [f"id {row}" for row in range(60)]
    assert all((tmp_path / f"out.{number}-of-3.jsonl").exists() for number in (1, 2, 3))


def test_a_job_that_is_told_to_stop_is_requeued_and_goes_on(slurm: Slurm, tmp_path: Path) -> None:
    jobs, out = write_jobs(tmp_path / "jobs.jsonl", 300), tmp_path / "out.jsonl"
    slow = ("--engine", "replay", "--engine-arg", "slots=2", "--engine-arg", "real_time=20")
    job = slurm.submit(BATCH / "single.sbatch", *slow, JOBS=str(jobs), OUT=str(out))
    journal = tmp_path / "out.jsonl.blendrun" / "journal"
    assert wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 5, 60), slurm.logs()
    before = journal.read_bytes().count(b"\n")
    # What Slurm itself sends two minutes before the end, by `--signal=USR1@120`.
    slurm.say("scancel", "--signal=USR1", job)
    assert wait_for(lambda: "Restarts=1" in slurm.say("scontrol", "show", "job", job), 90), slurm.logs()
    assert not out.exists()
    # It would wait for two minutes before it begins again.
    slurm.say("scontrol", "update", f"JobId={job}", "StartTime=now")
    assert slurm.ended(job, 240) == ["COMPLETED"]
    assert ids(out) == [f"id {row}" for row in range(300)]
    said = (slurm.folder / f"blendrun-{job}_4294967294.out").read_text()
    assert "resuming: " in said
    assert before > 5


def test_shards_that_are_not_finished_leave_the_merge_undone(slurm: Slurm, tmp_path: Path) -> None:
    jobs, out = write_jobs(tmp_path / "jobs.jsonl", 20), tmp_path / "out.jsonl"
    variables = {"JOBS": str(jobs), "OUT": str(out), "SHARDS": "3"}
    array = slurm.submit("--array=1,3", BATCH / "array.sbatch", "--engine", "replay", **variables)
    assert slurm.ended(array) == ["COMPLETED"] * 2
    assert blendrun("merge", out).returncode == 75
    again = slurm.submit("--array=2", BATCH / "array.sbatch", "--engine", "replay", **variables)
    assert slurm.ended(again) == ["COMPLETED"]
    assert blendrun("merge", out).returncode == 0
    assert ids(out) == [f"id {row}" for row in range(20)]

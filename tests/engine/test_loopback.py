"""Which connections of the engine's processes are kept on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from blendrun.engine.base import EngineSettings
from blendrun.engine.loopback import RENDEZVOUS_VARIABLE, loopback


def variables(folder: Path, **arguments: object) -> dict[str, str]:
    return loopback(EngineSettings("/models/none", "gpu", threads=1, server_args=arguments), folder)


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", RENDEZVOUS_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_one_machine_talks_to_itself(tmp_path: Path) -> None:
    assert variables(tmp_path, tp_size=4) == {
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        RENDEZVOUS_VARIABLE: f"file://{tmp_path}/rendezvous",
    }


def test_several_machines_need_the_network(tmp_path: Path) -> None:
    assert variables(tmp_path, nnodes=2) == variables(tmp_path, dist_init_addr="10.0.0.1:5000") == {}


def test_replicas_do_not_meet_in_one_file(tmp_path: Path) -> None:
    assert RENDEZVOUS_VARIABLE not in variables(tmp_path, dp_size=2)


def test_what_the_user_set_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    assert variables(tmp_path)["GLOO_SOCKET_IFNAME"] == "eth7"


_LISTENING = """
import os, sys
import torch.distributed as distributed
distributed.init_process_group("gloo", init_method=os.environ["RENDEZVOUS"], world_size=1, rank=0)
distributed.barrier(group=distributed.new_group([0], backend="gloo"))
links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
mine = {os.stat(link).st_ino for link in links if os.path.exists(link)}
for table in ("tcp", "tcp6"):
    for row in open(f"/proc/net/{table}").read().splitlines()[1:]:
        fields = row.split()
        if fields[3] == "0A" and int(fields[9]) in mine:
            print(fields[1].split(":")[0])
"""


@pytest.mark.runtime
def test_torch_then_listens_on_loopback_alone(tmp_path: Path) -> None:
    found = variables(tmp_path)
    environment = os.environ | found | {"RENDEZVOUS": found[RENDEZVOUS_VARIABLE]}
    done = subprocess.run(
        [sys.executable, "-c", _LISTENING], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"0100007F"}, "127.0.0.1, as the kernel writes it"

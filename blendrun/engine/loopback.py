"""Variables that keep what the engine's processes say to each other on this machine.

torch's rendezvous listens on every interface whatever address it is given, and Gloo and NCCL on the one that the host's
name leads to; who can reach them needs no password. Engines that span machines need that; all others do not.
"""

from __future__ import annotations

import os
from pathlib import Path

from blendrun.engine.base import EngineSettings

_INTERFACE = "lo"
_INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
RENDEZVOUS_VARIABLE = "SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE"


def loopback(settings: EngineSettings, scratch: Path) -> dict[str, str]:
    """What the user has set stands. scratch: a new folder of this engine alone, readable by its owner only."""
    arguments = settings.server_args
    if arguments.get("nnodes", 1) != 1 or arguments.get("dist_init_addr"):
        return {}
    found = dict.fromkeys(_INTERFACE_VARIABLES, _INTERFACE)
    # Replicas meet apart from each other, and would all meet in one file.
    if arguments.get("dp_size", 1) == 1:
        found[RENDEZVOUS_VARIABLE] = f"file://{scratch / 'rendezvous'}"
    return {name: os.environ.get(name, value) for name, value in found.items()}

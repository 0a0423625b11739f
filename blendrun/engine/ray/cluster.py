"""A Ray cluster that runs already: how it is reached, and how many engines its nodes hold."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
from dataclasses import dataclass

from blendrun.cost.hardware import match_hardware
from blendrun.errors import EngineUnavailableError, UsageError
from blendrun.installed import install_command

AUTO = "auto"
_REACH_S = 5.0
_START = "start one with `ray start --head`, or give the address of one"


@dataclass(frozen=True, slots=True)
class Cluster:
    """nodes: what each living node has in all: "CPU", "GPU", "accelerator_type:H100" and more."""

    address: str
    nodes: tuple[dict[str, float], ...]

    def most(self, resource: str) -> float:
        """Of a resource, on the node that has most of it."""
        return max((node.get(resource, 0.0) for node in self.nodes), default=0.0)

    def engines(self, needs: dict[str, float]) -> int:
        """How many engines could run at once if nothing else did. needs: resources of each, on one node."""
        return sum(int(min(node.get(name, 0.0) // amount for name, amount in needs.items())) for node in self.nodes)

    @property
    def card(self) -> str | None:
        """The hardware card of its GPUs; None where they are of several kinds or of one without a card."""
        names = {name for node in self.nodes for name in node if name.startswith("accelerator_type:")}
        return match_hardware(names.pop()) if len(names) == 1 else None


def connect(address: str) -> Cluster:
    """Join a cluster. address: HOST:PORT, or "auto" for RAY_ADDRESS or the cluster that this machine is a node of.

    Raises UsageError without Ray and for an address that is none, EngineUnavailableError where nothing answers.
    """
    wanted = (os.environ.get("RAY_ADDRESS") or AUTO) if address == AUTO else address
    _check(wanted)
    # Nobody asked for it. A user's own setting stands.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UsageError(f"--ray needs Ray: {install_command('ray')}") from None
    if not ray.is_initialized():
        _reach(wanted)
        if (failed := _joined_in_thread(wanted)) is not None:
            raise EngineUnavailableError(f"the Ray cluster at {wanted} cannot be joined: {_first_line(failed)}")
    nodes = tuple(dict(node["Resources"]) for node in ray.nodes() if node["Alive"])
    return Cluster(wanted, nodes)


def _check(address: str) -> None:
    if address == "local":
        raise UsageError(f"--ray local: blendrun starts no cluster; {_START}")
    if "://" in address:
        raise UsageError(
            f"--ray {address}: Ray Client is not supported; run on a node of the cluster with --ray auto, or by "
            "`ray job submit`"
        )
    if address != AUTO and not re.fullmatch(r".+:\d{1,5}", address):
        raise UsageError(f"--ray takes HOST:PORT or auto, not {address!r}")


def _reach(address: str) -> None:
    """Raises EngineUnavailableError where nothing answers. Ray itself would try for minutes, and print that it does."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        # Where Ray will look: it finds a cluster of this machine, and takes 127.0.0.1 for the address of its network.
        found = canonicalize_bootstrap_address(address)
    except (ConnectionError, ValueError, OSError) as error:
        raise EngineUnavailableError(f"no Ray cluster runs here ({_first_line(error)}): {_START}") from error
    host, _, port = str(found).rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_S).close()
    except (OSError, OverflowError, ValueError) as error:
        where = address if address in (AUTO, found) else f"{address}, which is {found} to Ray"
        raise EngineUnavailableError(f"no Ray cluster answers at {where} ({error}): {_START}") from error


def _joined_in_thread(address: str) -> BaseException | None:
    """What went wrong. In a thread: in the main one Ray would put a handler of its own in place of the run's."""
    import ray

    # Ray prints what befalls nodes to stdout, where data goes, even if it is told to be quiet.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    failed: list[BaseException] = []

    def join() -> None:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            failed.append(error)

    thread = threading.Thread(target=join, name="blendrun-ray", daemon=True)
    thread.start()
    thread.join()
    return failed[0] if failed else None


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300]

"""`--ray`: engines on the nodes of a Ray cluster."""

from __future__ import annotations

from typing import Any

from blendrun.backends.base import Placement
from blendrun.backends.options import RunOptions
from blendrun.engine.base import Engine
from blendrun.engine.ray.cluster import Cluster, connect
from blendrun.engine.ray.engine import RayEngine, describe_resources
from blendrun.engine.ray.host import Replay, Sglang
from blendrun.engine.settings import devices_of
from blendrun.errors import UsageError
from blendrun.events import Listener, Note, PhaseStarted
from blendrun.names import DeviceName, EngineName
from blendrun.store.folder import StateFolder

# What an engine takes of the CPUs beside its GPUs: it is busy with them, and a node has more than it has GPUs.
_CPUS_BESIDE_GPUS = 1.0
# These make one engine of several machines.
_SPANNING = ("nnodes", "node_rank", "dist_init_addr")


def place_on_cluster(options: RunOptions, listener: Listener) -> Placement:
    """Where the cluster has room for how many engines.

    Raises what `connect` raises, and UsageError for engines that no node can hold.
    """
    if "://" in options.engine:
        raise UsageError("--ray is for engines of this command: servers run where they are")
    listener(PhaseStarted("model", f"Ray cluster, {options.ray}"))
    arguments = _arguments(options)
    cluster = connect(str(options.ray))
    gpu = _on_gpus(options, cluster)
    if gpu:
        needs = {"GPU": _gpus(arguments, cluster), "CPU": _CPUS_BESIDE_GPUS}
        threads, replicas = options.threads or 1, options.replicas or max(cluster.engines(needs), 1)
    else:
        replicas = options.replicas or max(sum(node.get("CPU", 0) >= 1 for node in cluster.nodes), 1)
        threads = options.threads or _threads(cluster, replicas, replay=options.engine == EngineName.REPLAY)
        needs = {"CPU": float(threads)}
    if (room := cluster.engines(needs)) < replicas:
        each = describe_resources(needs)
        text = f"the cluster has room for {room} of {replicas} replicas ({each} each); others wait for nodes"
        listener(Note(text, warning=True))
    return Placement("gpu" if gpu else "cpu", replicas, threads, needs, cluster.card if gpu else None)


def on_node(hosted: Sglang | Replay, needs: dict[str, float], state: StateFolder) -> Engine:
    """One engine of the run, wherever Ray finds room for it."""
    return RayEngine(hosted, needs, state.engine_log, state.steps)


def _arguments(options: RunOptions) -> dict[str, Any]:
    arguments = options.engine_args if options.tp is None else options.engine_args | {"tp_size": options.tp}
    if spanning := [name for name in _SPANNING if name in arguments]:
        raise UsageError(f"--engine-arg {spanning[0]}: with --ray an engine is on one node; leave it out")
    return arguments


def _on_gpus(options: RunOptions, cluster: Cluster) -> bool:
    if options.engine == EngineName.REPLAY or options.device is DeviceName.CPU:
        return False
    return options.device is DeviceName.GPU or cluster.most("GPU") > 0


def _gpus(arguments: dict[str, Any], cluster: Cluster) -> float:
    """Of one engine. Raises UsageError where they would have to be on several nodes."""
    each = devices_of(arguments)
    # A cluster without GPUs may get some.
    if 0 < (most := cluster.most("GPU")) < each:
        raise UsageError(
            f"an engine of {each} GPUs must fit a node, and the largest of this cluster has {most:g}: ask for fewer "
            "(--tp), or add a larger node"
        )
    return float(each)


def _threads(cluster: Cluster, replicas: int, *, replay: bool) -> int:
    """As many for each replica as let all of them run at once."""
    most = 1 if replay else int(cluster.most("CPU"))
    return next((count for count in range(most, 0, -1) if cluster.engines({"CPU": float(count)}) >= replicas), 1)

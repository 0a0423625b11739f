"""`--ray`: from options to engines on the nodes of a Ray cluster."""

from __future__ import annotations

from typing import Any

from blendrun.cli.names import DeviceName, EngineName
from blendrun.engine.base import Engine, EngineSettings
from blendrun.engine.ray.cluster import Cluster, connect
from blendrun.engine.ray.engine import RayEngine, amounts
from blendrun.engine.ray.host import Replay, Sglang
from blendrun.engine.replay import ReplaySettings
from blendrun.engine.settings import parse_engine_args
from blendrun.errors import UsageError
from blendrun.models import ResolvedModel
from blendrun.runner.events import Note, PhaseStarted, Watch
from blendrun.runner.state import StateFolder

# What an engine takes of the CPUs beside its GPUs: it is busy with them, and a node has more than it has GPUs.
_CPUS_BESIDE_GPUS = 1.0
# These make one engine of several machines.
_SPANNING = ("nnodes", "node_rank", "dist_init_addr")


def on_cluster(options: dict[str, Any], watch: Watch) -> dict[str, Any]:
    """Options with what the cluster decides: device, replicas, threads, `needs` of each engine on its node, and the
    hardware card to plan with.

    Raises what `connect` raises, and UsageError for engines that no node can hold.
    """
    watch(PhaseStarted("model", f"Ray cluster, {options['ray']}"))
    arguments = _arguments(options)
    cluster = connect(options["ray"])
    gpu = _on_gpus(options, cluster)
    if gpu:
        threads, needs = options["threads"], {"GPU": _gpus(arguments, cluster), "CPU": _CPUS_BESIDE_GPUS}
        replicas = options["replicas"] or max(cluster.engines(needs), 1)
    else:
        replicas = options["replicas"] or max(sum(node.get("CPU", 0) >= 1 for node in cluster.nodes), 1)
        threads = options["threads"] or _threads(cluster, replicas, replay=options["engine"] == EngineName.REPLAY)
        needs = {"CPU": float(threads)}
    if (room := cluster.engines(needs)) < replicas:
        each = amounts(needs)
        watch(
            Note(f"the cluster has room for {room} of {replicas} replicas ({each} each); others wait for nodes", True)
        )
    device = DeviceName.GPU if gpu else DeviceName.CPU
    return options | {
        "device": device,
        "replicas": replicas,
        "threads": threads,
        "needs": needs,
        "hardware": cluster.card if gpu else None,
    }


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    arguments = parse_engine_args(options["engine_arg"] or [])
    if options["tp"] is not None:
        arguments["tp_size"] = options["tp"]
    if spanning := [name for name in _SPANNING if name in arguments]:
        raise UsageError(f"--engine-arg {spanning[0]}: with --ray an engine is on one node; leave it out")
    return arguments


def _on_gpus(options: dict[str, Any], cluster: Cluster) -> bool:
    if options["engine"] == EngineName.REPLAY or options["device"] == DeviceName.CPU:
        return False
    return options["device"] == DeviceName.GPU or cluster.most("GPU") > 0


def _gpus(arguments: dict[str, Any], cluster: Cluster) -> float:
    """Of one engine. Raises UsageError where they would have to be on several nodes."""
    each = int(arguments.get("tp_size", 1)) * int(arguments.get("pp_size", 1)) * int(arguments.get("dp_size", 1))
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


def sglang_on_node(
    options: dict[str, Any], settings: EngineSettings, model: ResolvedModel, state: StateFolder
) -> Engine:
    """One engine of the run, wherever Ray finds room for it."""
    hosted = Sglang(settings, model.name, model.identity, str(state.engine_log))
    return RayEngine(hosted, options["needs"], state.engine_log, state.steps)


def replay_on_node(options: dict[str, Any], settings: ReplaySettings, state: StateFolder) -> Engine:
    """The same without a model."""
    return RayEngine(Replay(settings), options["needs"], state.engine_log, state.steps)

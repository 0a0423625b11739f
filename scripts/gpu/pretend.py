"""SGLang's and blendrun's branch for CUDA imported without a GPU, from what is carried and nothing else.

    PYTHONPATH=SITE python scripts/gpu/pretend.py SITE

SITE: the carried packages, unpacked. A package of this environment that is neither carried nor on the machine
(`there.txt`) cannot be imported, and torch says that a card is there.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

HERE = Path(__file__).parent
# What an engine with a dense Llama on Triton's attention loads, and what blendrun hooks into it.
MODULES = (
    "sglang.srt.entrypoints.engine",
    "sglang.srt.managers.scheduler",
    "sglang.srt.model_executor.model_runner",
    "sglang.srt.models.llama",
    "sglang.srt.layers.attention.triton_backend",
    "sglang.srt.entrypoints.openai.serving_chat",
    "sglang.srt.entrypoints.openai.serving_completions",
    "sglang.srt.constrained.xgrammar_backend",
    "blendrun.engine.worker",
    "blendrun.engine.scheduler.plugin",
    "blendrun.calibrate.worker",
    "blendrun_rounds.mixed_rows",
)
CARD = SimpleNamespace(
    name="NVIDIA H200", major=9, minor=0, total_memory=143771 << 20, multi_processor_count=132, warp_size=32,
    gcnArchName="", is_integrated=False, L2_cache_size=60 << 20, regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048, shared_memory_per_block_optin=232448,
)  # fmt: skip


class OnlyWhatIsThere(MetaPathFinder):
    """The finders of this process, which do not find distributions that the machine would not have."""

    def __init__(self, site: Path) -> None:
        carried = {path.name.split(".")[0] for path in site.iterdir()}
        there = {_plain(line) for line in (HERE / "there.txt").read_text().splitlines() if line[:1] != "#"}
        self.refused = {
            name
            for name, owners in importlib.metadata.packages_distributions().items()
            if name not in carried and not any(_plain(each) in there for each in owners)
        }
        self.tried: set[str] = set()
        self._there = there | {_plain(path.name.split("-")[0]) for path in site.glob("*.dist-info")}
        self._finders = list(sys.meta_path)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in self.refused:
            self.tried.add(fullname)
            return None
        found = (each.find_spec(fullname, path, target) for each in self._finders)
        return next((spec for spec in found if spec is not None), None)

    def find_distributions(self, context: Any = None) -> Iterator[importlib.metadata.Distribution]:
        """What `importlib.metadata` sees."""
        for each in importlib.metadata.MetadataPathFinder.find_distributions(
            context or importlib.metadata.DistributionFinder.Context()
        ):
            if _plain(each.name) in self._there:
                yield each


def main() -> None:
    site = Path(sys.argv[1]).resolve()
    only = OnlyWhatIsThere(site)
    sys.meta_path[:] = [only]
    pretend()
    for name in MODULES:
        module = importlib.import_module(name)
        print(f"{name}: {_origin(module, site)}", flush=True)
    print(f"asked for and not there: {', '.join(sorted(only.tried)) or 'nothing'}")


def pretend() -> None:
    """torch with a card, for as far as it is asked while modules are imported."""
    import torch

    torch.version.cuda = torch.version.cuda or "13.0"
    cuda: Any = torch.cuda
    for name, value in {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": CARD.name,
        "get_device_capability": (CARD.major, CARD.minor),
        "get_device_properties": CARD,
        "_lazy_init": None,
        "mem_get_info": (CARD.total_memory, CARD.total_memory),
        "synchronize": None,
    }.items():
        setattr(cuda, name, lambda *_, _value=value, **__: _value)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _origin(module: ModuleType, site: Path) -> str:
    file = Path(module.__file__ or "")
    return "carried" if file.is_relative_to(site) else "of this environment"


if __name__ == "__main__":
    main()

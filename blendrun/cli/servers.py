"""`--engine http://host:port,...`: servers that already run, each a replica."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from blendrun.blend.base import OrderName as Order
from blendrun.cli.names import OrderName, OverlapName
from blendrun.cost.capacity import EngineLimits
from blendrun.cost.detect import own_hardware
from blendrun.engine.base import Engine
from blendrun.engine.http import HttpEngine, HttpSettings, parse_servers
from blendrun.engine.http.engine import http_client
from blendrun.engine.http.server import Facts, ServerAwayError, look
from blendrun.errors import UsageError
from blendrun.models import ResolvedModel
from blendrun.planner.feed import RunPlan, RunPlanner
from blendrun.runner.state import StateFolder
from blendrun.simulate.base import Overlap

# The card that servers elsewhere are planned for: the order depends on proportions more than on rates.
_STAND_IN = "h100-sxm"
_LOCAL = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Servers:
    """addresses: of the servers. settings: what was said of each. facts: what those that are up say of themselves."""

    addresses: tuple[str, ...]
    settings: HttpSettings
    facts: tuple[Facts, ...]

    def make_engine(self, state: StateFolder, plan: RunPlan, shrinks: int) -> Engine:
        """The engine of a replica; what a server has room for is its own affair."""
        return HttpEngine(self.addresses[state.replica - 1], self.settings, state.engine_log)

    def planner(self, model: ResolvedModel, order: str) -> RunPlanner | None:
        """What plans for the smallest of them; None where rows are fed as they stand."""
        if order in (OrderName.GIVEN, OrderName.SHUFFLED):
            return None
        mixes = any(each.mixes for each in self.facts)
        return RunPlanner(
            model,
            None if order == OrderName.AUTO else Order(order),
            overlap=Overlap.MIXED if mixes else Overlap.EXCLUSIVE,
            limits=self.limits,
            hardware=self.settings.hardware or self._hardware(),
        )

    @property
    def limits(self) -> EngineLimits:
        """Of the smallest of them."""
        settings = self.settings
        return EngineLimits(
            settings.max_total_tokens or _least(each.kv_tokens for each in self.facts),
            settings.max_running_requests or settings.concurrency or _least(each.max_running for each in self.facts),
            _least(each.chunk for each in self.facts),
        )

    @property
    def context_length(self) -> int | None:
        """The shortest."""
        return _least(each.context_length for each in self.facts)

    def _hardware(self) -> str:
        local = all(urlsplit(address).hostname in _LOCAL for address in self.addresses)
        return own_hardware() if local else _STAND_IN


def servers_of(options: dict[str, Any], arguments: dict[str, Any]) -> Servers | None:
    """The servers that `--engine` names; None where it names none. Asks those that are up what they hold.

    Raises UsageError for options that do not go with servers.
    """
    addresses = parse_servers(options["engine"])
    if not addresses:
        return None
    if options["replicas"] not in (1, len(addresses)):
        raise UsageError(f"--replicas {options['replicas']}: each address is a replica, and {len(addresses)} are given")
    if options["tp"] is not None:
        raise UsageError("--tp is for engines of this command: a server decides that itself")
    if options["overlap"] != OverlapName.AUTO:
        raise UsageError("--overlap is for engines of this command: a server decides that itself")
    settings = HttpSettings.from_arguments(arguments)
    facts = asyncio.run(_ask(addresses))
    served = sorted({each.models[0] for each in facts})
    if settings.model is None and len(served) > 1:
        raise UsageError(f"the servers serve different models: {', '.join(served)}")
    return Servers(addresses, settings, facts)


async def _ask(addresses: tuple[str, ...]) -> tuple[Facts, ...]:
    """Of those that answer now; the others are waited for when there is work for them."""

    async def one(address: str) -> Facts | None:
        async with http_client(address) as client:
            try:
                return await look(client)
            except ServerAwayError:
                return None

    found = await asyncio.gather(*map(one, addresses))
    return tuple(each for each in found if each is not None)


def _least(numbers: Iterable[int | None]) -> int | None:
    return min((each for each in numbers if each is not None), default=None)

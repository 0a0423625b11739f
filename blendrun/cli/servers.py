"""`--engine http://host:port,...`: servers that already run, each a replica."""

from __future__ import annotations

import asyncio
import time
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
from blendrun.errors import EngineUnavailableError, UsageError
from blendrun.models import ResolvedModel
from blendrun.planner.feed import RunPlan, RunPlanner
from blendrun.runner.state import StateFolder
from blendrun.simulate.base import Overlap

# The card that servers elsewhere are planned for: the order depends on proportions more than on rates.
_STAND_IN = "h100-sxm"
# How often a server that is awaited is looked for, in seconds.
_LOOK_S = 2.0
_LOCAL = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Servers:
    """addresses: of the servers. settings: what was said of each. facts: what those that are up say of themselves."""

    addresses: tuple[str, ...]
    settings: HttpSettings
    facts: tuple[Facts, ...]

    def make_engine(self, state: StateFolder, plan: RunPlan, shrinks: int) -> Engine:
        """The engine of a replica; what a server has room for is its own affair."""
        models = self.facts[0].models if self.settings.model is None else (self.settings.model,)
        return HttpEngine(self.addresses[state.replica - 1], self.settings, state.engine_log, models)

    @property
    def model(self) -> str:
        """Name that is asked for."""
        return self.settings.model or self.facts[0].models[0]

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


def servers_of(options: dict[str, Any], arguments: dict[str, Any], progress: Any) -> Servers | None:
    """The servers that `--engine` names; None where it names none. Asks those that are up what they hold.

    Raises UsageError for options that do not go with servers, EngineUnavailableError where none is up in time.
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
    unplanned = (OrderName.GIVEN, OrderName.SHUFFLED, OrderName.AUTO)
    if options["model"] is None and options["order"] not in unplanned:
        raise UsageError(
            f"--order {options['order']} needs the prompts in tokens: give --model, whose tokenizer the servers use"
        )
    settings = HttpSettings.from_arguments(arguments)
    facts = asyncio.run(_ask(addresses, settings, progress))
    served = sorted({", ".join(each.models) for each in facts})
    if settings.model is None and len(served) > 1:
        raise UsageError(f"the servers serve different models: {'; '.join(served)}")
    return Servers(addresses, settings, facts)


async def _ask(addresses: tuple[str, ...], settings: HttpSettings, progress: Any) -> tuple[Facts, ...]:
    """Of those that answer now, one at least; the others are waited for when there is work for them.

    Raises EngineUnavailableError where none answers in time.
    """
    end = time.monotonic() + settings.wait
    while True:
        found = await asyncio.gather(*map(_look, addresses))
        if up := tuple(each for each in found if isinstance(each, Facts)):
            return up
        if time.monotonic() >= end:
            raise EngineUnavailableError(f"{addresses[0]} is away ({found[0]}): start it, or check the address")
        progress(f"waiting for {', '.join(addresses)}: {found[0]}")
        await asyncio.sleep(min(_LOOK_S, max(end - time.monotonic(), 0.0)))


async def _look(address: str) -> Facts | str:
    """What a server says of itself, or why it does not."""
    async with http_client(address) as client:
        try:
            return await look(client)
        except ServerAwayError as error:
            return str(error)


def _least(numbers: Iterable[int | None]) -> int | None:
    return min((each for each in numbers if each is not None), default=None)

"""`--engine http://host:port,...`: servers that already run, each a replica."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from blendrun.backends.base import LOAD_STALL_S, Backend, Opening
from blendrun.backends.options import RunOptions
from blendrun.backends.permissions import rules_of
from blendrun.backends.sglang import context_length
from blendrun.blend.orders import needs_prompts
from blendrun.cost.capacity import EngineLimits
from blendrun.cost.hardware import STAND_IN
from blendrun.endpoints.rules import Rules
from blendrun.engine.base import Engine
from blendrun.engine.http.client import http_client
from blendrun.engine.http.engine import HttpEngine
from blendrun.engine.http.server import ServerAwayError, ServerInfo, look
from blendrun.engine.http.settings import HttpSettings, parse_servers
from blendrun.errors import EngineUnavailableError, UsageError
from blendrun.events import Listener, PhaseStarted
from blendrun.models.card import ModelCard
from blendrun.models.resolve import ResolvedModel, resolve_model
from blendrun.names import OrderName, Overlap
from blendrun.planner.run_plan import RunPlan
from blendrun.planner.run_planner import RunPlanner
from blendrun.runner.strict import JobCheck
from blendrun.store.folder import StateFolder

# How often a server that is awaited is looked for, in seconds.
_LOOK_S = 2.0
_LOCAL = ("127.0.0.1", "::1", "localhost")
# Of a server nothing is seen but its answers: beyond what it may take for one, twice, and for coming up.
_MARGIN_S = 600.0
_SERVED = "served"


@dataclass(frozen=True, slots=True)
class Servers:
    """addresses: of the servers. settings: what was said of each. info: what those that are up say of themselves."""

    addresses: tuple[str, ...]
    settings: HttpSettings
    info: tuple[ServerInfo, ...]

    def make_engine(self, state: StateFolder, plan: RunPlan, shrinks: int) -> Engine:
        """The engine of a replica; what a server has room for is its own affair."""
        models = self.info[0].models if self.settings.model is None else (self.settings.model,)
        return HttpEngine(self.addresses[state.replica - 1], self.settings, state.engine_log, models)

    def rules(self, options: RunOptions, card: ModelCard | None = None) -> Rules:
        """What lines may ask for. Which adapters there are the servers say, and whether a line may have one."""
        found = rules_of(options, {}, card)
        adapters = tuple(dict.fromkeys(name for each in self.info for name in each.adapters))
        # A line that names what is served gets it.
        base = dict.fromkeys((*(found.base or ()), *(name for each in self.info for name in each.models)))
        return replace(found, adapters=adapters or None, base=tuple(base))

    @property
    def model(self) -> str:
        """Name that is asked for."""
        return self.settings.model or self.info[0].models[0]

    def planner(self, model: ResolvedModel, order: OrderName | None) -> RunPlanner | None:
        """What plans for the smallest of them; None where rows are fed as they stand."""
        if order is not None and not needs_prompts(order):
            return None
        mixes = any(each.mixes for each in self.info)
        return RunPlanner(
            model,
            order,
            overlap=Overlap.MIXED if mixes else Overlap.EXCLUSIVE,
            limits=self.limits,
            hardware=self.settings.hardware or (None if self._local else STAND_IN),
        )

    @property
    def limits(self) -> EngineLimits:
        """Of the smallest of them. All are taken to have as many devices as the first one that says."""
        settings, first = self.settings, next((each for each in self.info if each.tensor), None)
        return EngineLimits(
            settings.max_total_tokens or _least(each.kv_tokens for each in self.info),
            settings.max_running_requests or settings.concurrency or _least(each.max_running for each in self.info),
            _least(each.chunk for each in self.info),
            tensor=first.tensor if first else None,
            stages=(first.stages or 1) if first else 1,
        )

    @property
    def context_length(self) -> int | None:
        """The shortest."""
        return _least(each.context_length for each in self.info)

    @property
    def _local(self) -> bool:
        return all(urlsplit(address).hostname in _LOCAL for address in self.addresses)


def open_backend(opening: Opening) -> Backend:
    """Asks the servers that are up what they hold.

    Raises UsageError for options that do not go with servers, EngineUnavailableError where none is up in time.
    """
    options, listener = opening.options, opening.listener
    servers = _look_at(options, opening.place.replicas, listener)
    found = Backend(
        engine="http",
        model=options.model or _SERVED,
        identity=_SERVED,
        make_engine=servers.make_engine,
        rules=servers.rules(options),
        replicas=len(servers.addresses),
        devices=len(servers.addresses) * (servers.limits.devices or 1),
        stall=2 * servers.settings.timeout + _MARGIN_S,
        load=max(LOAD_STALL_S, servers.settings.wait + _MARGIN_S),
        # Answers of two models must not mix unasked.
        answer_settings={"served": servers.model},
        # Nobody knows what weights they hold.
        apart=servers.addresses,
    )
    if options.model is None:
        return found
    # Its weights are the servers' affair.
    resolved = resolve_model(options.model, platform="gpu", listener=listener, weights=False)
    return replace(
        found,
        identity=resolved.identity,
        planner=servers.planner(resolved, options.order),
        rules=servers.rules(options, resolved.card),
        check=_check(servers, resolved) if options.strict else None,
        resolved=resolved,
    )


def _check(servers: Servers, model: ResolvedModel) -> JobCheck:
    return JobCheck(
        model=model.name,
        path=model.path,
        context_length=servers.context_length or context_length(model, {}),
        pool_tokens=servers.limits.pool_tokens,
        arguments={"grammar_backend": _SERVED},
    )


def _look_at(options: RunOptions, replicas: int, listener: Listener) -> Servers:
    addresses = parse_servers(options.engine)
    if replicas not in (1, len(addresses)):
        raise UsageError(f"--replicas {replicas}: each address is a replica, and {len(addresses)} are given")
    for option in ("tp", "overlap"):
        if getattr(options, option) is not None:
            raise UsageError(f"--{option} is for engines of this command: a server decides that itself")
    if options.model is None and options.order is not None and needs_prompts(options.order):
        raise UsageError(
            f"--order {options.order} needs the prompts in tokens: give --model, whose tokenizer the servers use"
        )
    settings = HttpSettings.from_arguments(options.engine_args)
    info = asyncio.run(_ask(addresses, settings, listener))
    served = sorted({", ".join(each.models) for each in info})
    if settings.model is None and len(served) > 1:
        raise UsageError(f"the servers serve different models: {'; '.join(served)}")
    return Servers(addresses, settings, info)


async def _ask(addresses: tuple[str, ...], settings: HttpSettings, listener: Listener) -> tuple[ServerInfo, ...]:
    """Of those that answer now, one at least; the others are waited for when there is work for them.

    Raises EngineUnavailableError where none answers in time.
    """
    end = time.monotonic() + settings.wait
    while True:
        found = await asyncio.gather(*map(_look, addresses))
        if up := tuple(each for each in found if isinstance(each, ServerInfo)):
            return up
        if time.monotonic() >= end:
            raise EngineUnavailableError(f"{addresses[0]} is away ({found[0]}): start it, or check the address")
        listener(PhaseStarted("model", f"waiting for {', '.join(addresses)}: {found[0]}"))
        await asyncio.sleep(min(_LOOK_S, max(end - time.monotonic(), 0.0)))


async def _look(address: str) -> ServerInfo | str:
    """What a server says of itself, or why it does not."""
    async with http_client(address) as client:
        try:
            return await look(client)
        except ServerAwayError as error:
            return str(error)


def _least(numbers: Iterable[int | None]) -> int | None:
    return min((each for each in numbers if each is not None), default=None)

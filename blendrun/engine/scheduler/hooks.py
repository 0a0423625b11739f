"""A hook on SGLang's code that proves that it runs, and gives way to SGLang's own code when it fails.

SGLang only logs a hook whose target is gone, and an exception in a scheduler ends the whole engine. So the first call
of a hook leaves a file, and a hook that raises is noted in the engine's log and does nothing from then on.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hook:
    """One function around one of SGLang's.

    feature: what it is part of. target: dotted path. kind: "after" takes (result, *args), "around" (original, *args).
    warmed: whether the first request of a fresh engine passes it before it is answered; else it is proved by its target
    being there.
    """

    feature: str
    target: str
    function: Callable[..., Any]
    kind: Literal["after", "around"]
    warmed: bool = True


def install(hooks: Iterable[Hook], proofs: str | None) -> None:
    """Register `hooks` with SGLang. proofs: files that begin so are left by those that took."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    for hook, proof in _proved(hooks, proofs):
        # Around in any case: an "after" hook of SGLang's could not tell its own failure from the target's.
        HookRegistry.register(hook.target, guarded(hook, proof), HookType.AROUND)


class Switchboard:
    """Hooks that another set takes the place of, on an engine that goes on to another job. One around each target."""

    def __init__(self, targets: Iterable[str]) -> None:
        """targets: of all hooks that any set may have."""
        self._targets = tuple(dict.fromkeys(targets))
        self._chains: dict[str, list[Callable[..., Any]]] = {}

    def install(self, hooks: Iterable[Hook], proofs: str | None) -> None:
        """Register with SGLang, once, and begin with `hooks`. proofs: as of `install`."""
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType

        self.put(hooks, proofs)
        for target in self._targets:
            HookRegistry.register(target, self.around(target), HookType.AROUND)

    def put(self, hooks: Iterable[Hook], proofs: str | None = None) -> None:
        """From now on these; of two around one target the later is the outer one."""
        chains: dict[str, list[Callable[..., Any]]] = {}
        for hook, proof in _proved(hooks, proofs):
            chains.setdefault(hook.target, []).append(guarded(hook, proof))
        self._chains = chains

    def around(self, target: str) -> Callable[..., Any]:
        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            for hook in self._chains.get(target, ()):
                original = functools.partial(hook, original)
            return original(*args, **kwargs)

        return call


def _proved(hooks: Iterable[Hook], proofs: str | None) -> Iterator[tuple[Hook, Path | None]]:
    """Each hook and the file that it leaves once it ran; of those that no warm-up passes, it is left now."""
    for number, hook in enumerate(hooks):
        proof = None if proofs is None else proof_of(proofs, number, hook)
        if proof is not None and not hook.warmed and _is_there(hook.target):
            # A proof that cannot be left is a note too much, and no reason to do without the other hooks.
            with contextlib.suppress(OSError):
                proof.touch()
        yield hook, proof


def proof_of(proofs: str, number: int, hook: Hook) -> Path:
    """The file that hook `number` leaves."""
    return Path(f"{proofs}-{number}-{hook.feature}")


def features_missing(hooks: Iterable[Hook], proofs: str) -> list[str]:
    """Features of which a hook has left no proof; takes the proofs away."""
    missing = []
    for number, hook in enumerate(hooks):
        proof = proof_of(proofs, number, hook)
        if not proof.exists() and hook.feature not in missing:
            missing.append(hook.feature)
        proof.unlink(missing_ok=True)
    return missing


def guarded(hook: Hook, proof: Path | None) -> Callable[..., Any]:
    """`hook` as a function around its target, which an exception of its own turns off for good."""
    state = _State(proof)

    @functools.wraps(hook.function)
    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if state.broken:
            return original(*args, **kwargs)
        target = _Target(original)
        try:
            if hook.kind == "around":
                result = hook.function(target, *args, **kwargs)
            else:
                result = target(*args, **kwargs)
                hook.function(result, *args, **kwargs)
            state.prove()
        except Exception as error:
            if error is target.error:
                raise
            state.broken = True
            logger.exception("blendrun: %s failed and is off from now on; SGLang goes on without it", hook.feature)
            return target.result if target.called else original(*args, **kwargs)
        return result

    return around


class _Target:
    """SGLang's own function, and what came of calling it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.called = False
        self.result: Any = None
        self.error: BaseException | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.called = True
        try:
            self.result = self._function(*args, **kwargs)
        except BaseException as error:
            self.error = error
            raise
        return self.result


class _State:
    def __init__(self, proof: Path | None) -> None:
        self.broken = False
        self._proof = proof

    def prove(self) -> None:
        if self._proof is not None:
            proof, self._proof = self._proof, None
            proof.touch()


def _is_there(target: str) -> bool:
    try:
        pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError):
        return False
    return True

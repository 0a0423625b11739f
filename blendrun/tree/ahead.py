"""Kernels made ready beside other work: loaded from the cache, or compiled, while prompts are tokenised."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Thread

from blendrun.tree.compiled import load_kernels, needs_compiling

_LOCK = Lock()
_BEGUN: list[_Ahead] = []


class _Ahead(Thread):
    """Loads all kernels; `looked` is set once it is known whether they have to be compiled (`missing`)."""

    def __init__(self) -> None:
        # A command that ends meanwhile does not wait for a compiler.
        super().__init__(name="kernels", daemon=True)
        self.looked, self.missing = Event(), False

    def run(self) -> None:
        # Whoever needs the kernels tries once more, and hears then what is wrong.
        with suppress(Exception):
            self.missing = needs_compiling()
            self.looked.set()
            load_kernels()
        self.looked.set()


def begin_loading() -> None:
    """Begin in a thread, once a process. All kernels that will be wanted are imported by now."""
    with _LOCK:
        if not _BEGUN:
            _BEGUN.append(_Ahead())
            _BEGUN[0].start()


def finish_loading(say: Callable[[], None]) -> None:
    """Load every kernel, or wait for what `begin_loading` began. say: called where that takes seconds."""
    for begun in _BEGUN:
        begun.looked.wait()
        if begun.missing and begun.is_alive():
            say()
        begun.join()
    if needs_compiling():
        say()
        load_kernels()

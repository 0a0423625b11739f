"""Loops compiled by Numba: loaded or compiled at first use, cached on disk, and never for seconds without a word.

    @compiled(I32_IN, I64)
    def total(values: NDArray[np.int32], limit: int) -> int: ...

    @inlined
    def part_of_total(value: int) -> int: ...

    @reordered
    def largest(values: NDArray[np.float32]) -> float: ...

A kernel (`compiled`) names its argument types, so exactly one machine code of it exists, found in the cache by the next
process. `inlined` marks what kernels call, in any file; it is compiled as part of each of them. So does `reordered`,
for sums and largest values that may be taken in any order. Numba's cache by itself notices changes of the kernel's own
file only, so the name a kernel is cached under holds a digest of all code and all constants that it is made of.

Importing a module of kernels does not import Numba, which takes longer than all of blendrun's command line. Where no
cache can be written (neither __pycache__ beside the source nor the user's cache folder), every process compiles.
Small jobs do without, unless the process has them already (`blendrun.tree.interpreted`).
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from types import CodeType, FunctionType, ModuleType
from typing import Any, Generic, ParamSpec, TypeVar, cast

import numpy as np

from blendrun.tree.interpreted import call, interprets

P = ParamSpec("P")
R = TypeVar("R")

# Argument types, in Numba's words. `_IN` arrays are not written, so read-only memory maps fit.
I64, F64, BOOL = "i8", "f8", "b1"
I32_IN, I64_IN, U64_IN, F64_IN, BOOL_IN = (f"Array({kind}, 1, 'C', True)" for kind in ("i4", "i8", "u8", "f8", "b1"))
I32_OUT, I64_OUT, U64_OUT, F64_OUT, BOOL_OUT = (f"{kind}[::1]" for kind in ("i4", "i8", "u8", "f8", "b1"))
I32_TABLE_IN = "Array(i4, 2, 'C', True)"
F64_TABLE_OUT = "f8[:, ::1]"

_NOTHING = subprocess.DEVNULL
# In LLVM's words: what `reordered` allows.
_ANY_ORDER = {"reassoc", "nnan", "nsz", "contract"}

_KERNELS: list[Kernel[..., Any]] = []
_LOCK = Lock()


class Kernel(Generic[P, R]):
    """A function that runs as machine code, in a thread without the interpreter's lock."""

    def __init__(self, function: Callable[P, R], arguments: tuple[str | np.dtype[np.void], ...]) -> None:
        self.function = cast(FunctionType, function)
        self.arguments = arguments
        self._code: Callable[P, R] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Raises TypeError where an argument's type is not the one named, rather than compile again."""
        if interprets():
            return cast(R, call(self.function, args))
        code = self._code or self.load()
        return code(*args, **kwargs)

    @property
    def loaded(self) -> bool:
        """Whether the machine code is in this process."""
        return self._code is not None

    def load(self) -> Callable[P, R]:
        """Load the machine code from the cache, or compile it. Once a process; safe from many threads."""
        with _LOCK:
            if self._code is None:
                code = _with_inner_functions(self.function)
                code.__qualname__ += f"_{_digest(self.function)}"
                dispatcher = _jit(code, kernel=True)
                dispatcher.compile(_signature(self.arguments))
                dispatcher.disable_compile()
                self._code = dispatcher
            return cast(Callable[P, R], self._code)

    @cached_property
    def address(self) -> int:
        """Where its machine code begins, for C code that calls it with arguments as C has them."""
        self.load()
        code: Any = self._code
        [compilation] = code.overloads.values()
        return int(compilation.library.get_pointer_to_function(compilation.fndesc.llvm_cfunc_wrapper_name))


class Inlined(Generic[P, R]):
    """A function that kernels call. Called from Python it is plain Python.

    reordered: whether its sums and largest values may be taken in any order, which makes them vectors' work.
    """

    def __init__(self, function: Callable[P, R], reordered: bool = False) -> None:
        self.function = cast(FunctionType, function)
        self.reordered = reordered
        self.code: Any = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast(R, self.function(*args, **kwargs))


def compiled(*arguments: str | np.dtype[np.void]) -> Callable[[Callable[P, R]], Kernel[P, R]]:
    """Decorator of a kernel. arguments, one each: a constant of this module, a type in Numba's words, or the type of
    the records of an array."""

    def register(function: Callable[P, R]) -> Kernel[P, R]:
        kernel = Kernel(function, arguments)
        _KERNELS.append(kernel)
        return kernel

    return register


def inlined(function: Callable[P, R]) -> Inlined[P, R]:
    """Decorator of a function that kernels call."""
    return Inlined(function)


def reordered(function: Callable[P, R]) -> Inlined[P, R]:
    """Decorator of a function that kernels call, whose result may differ by rounding from that of the order written.

    It must not meet a NaN.
    """
    return Inlined(function, reordered=True)


def needs_compiling() -> bool:
    """Whether a kernel of the modules imported so far must be compiled; those in the cache are loaded.

    Where this is True, say so and call `load_kernels`, which then takes seconds.
    """
    return bool(_missing())


def kernels_loaded() -> bool:
    """Whether every kernel of the modules imported so far is machine code in this process."""
    return all(kernel.loaded for kernel in _KERNELS)


def load_kernels(package: str = "") -> None:
    """Load every kernel of the modules imported so far, compiling what is in no cache: some of it in a process beside
    this one, for the compiler is never in two threads at once. package: load only those below it, all in this process.
    """
    if package:
        for kernel in _KERNELS:
            if kernel.function.__module__.startswith(package):
                kernel.load()
        return
    mine, others = _divided(_missing())
    beside = _start_compiling(others) if others else None
    for kernel in mine:
        kernel.load()
    if beside is not None:
        beside.wait()
    for kernel in _KERNELS:
        kernel.load()


def compile_beside(package: str) -> Callable[[], object]:
    """Compile kernels below `package`, of those imported so far, in a process beside this one where no cache has them.

    What is returned waits for it; then `load_kernels` finds them. With one core nothing is done here.
    """
    missing = _missing(package) if _cores() > 1 else []
    beside = _start_compiling(missing) if missing else None
    return (lambda: None) if beside is None else beside.wait


def _missing(package: str = "") -> list[Kernel[..., Any]]:
    """Kernels below `package` that are in no cache; the others are loaded."""
    from numba.core import event  # Numba takes half a second to import.

    class Refusal(event.Listener):  # type: ignore[misc]
        def on_start(self, event: object) -> None:
            raise _WouldCompileError

        def on_end(self, event: object) -> None:
            pass

    with event.install_listener("numba:compile", Refusal()):
        below = [kernel for kernel in _KERNELS if kernel.function.__module__.startswith(package)]
        return [kernel for kernel in below if not _try_load(kernel)]


def _divided(kernels: list[Kernel[..., Any]]) -> tuple[list[Kernel[..., Any]], list[Kernel[..., Any]]]:
    """Two lists that take about as long to compile; one where there is one core or one kernel."""
    if _cores() < 2 or len(kernels) < 2:
        return kernels, []
    sizes = {id(kernel): sum(map(len, _ingredients(kernel.function, seen=set()))) for kernel in kernels}
    lists: tuple[list[Kernel[..., Any]], list[Kernel[..., Any]]] = [], []
    for kernel in sorted(kernels, key=lambda each: -sizes[id(each)]):
        min(lists, key=lambda each: sum(sizes[id(one)] for one in each)).append(kernel)
    return lists


def _start_compiling(kernels: list[Kernel[..., Any]]) -> subprocess.Popen[bytes] | None:
    names = [f"{kernel.function.__module__}:{kernel.function.__name__}" for kernel in kernels]
    command = [sys.executable, "-P", "-m", "blendrun.tree.compiling", *names]
    try:
        beside = subprocess.Popen(command, stdin=_NOTHING, stdout=_NOTHING, stderr=_NOTHING)
    except OSError:
        # Then they are compiled here, as all that such a process did not leave in the cache.
        return None
    # A command that ends before has no use for it.
    atexit.register(beside.terminate)
    return beside


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _WouldCompileError(Exception):
    """Stops Numba before it compiles."""


def _try_load(kernel: Kernel[..., Any]) -> bool:
    try:
        kernel.load()
    except _WouldCompileError:
        return False
    return True


def _signature(arguments: tuple[str | np.dtype[np.void], ...]) -> tuple[Any, ...]:
    from numba.core import sigutils
    from numba.np.numpy_support import from_dtype

    (types, _) = sigutils.normalize_signature(f"({', '.join(each for each in arguments if isinstance(each, str))},)")
    named = iter(types)
    return tuple(next(named) if isinstance(each, str) else from_dtype(each)[::1] for each in arguments)


def _jit(function: FunctionType, *, kernel: bool, reordered: bool = False) -> Any:
    from numba import njit

    # What only kernels call needs no way in from Python or C, which takes longer to compile than most of it.
    options = {
        "nogil": True,
        "error_model": "numpy",
        "no_cpython_wrapper": not kernel,
        "no_cfunc_wrapper": not kernel,
        "fastmath": _ANY_ORDER if reordered else False,
    }
    try:
        return njit(function, cache=kernel, **options)
    except RuntimeError:
        # Numba found no folder to keep code in.
        return njit(function, cache=False, **options)


def _with_inner_functions(function: FunctionType) -> FunctionType:
    """The function with its `Inlined` globals replaced by what Numba can call."""
    known = function.__globals__
    names = {name: _inner(known[name]) for name in function.__code__.co_names if isinstance(known.get(name), Inlined)}
    code = FunctionType(function.__code__, known | names, function.__name__, function.__defaults__)
    code.__module__, code.__qualname__ = function.__module__, function.__qualname__
    return code


def _inner(value: Inlined[..., Any]) -> Any:
    if value.code is None:
        value.code = _jit(_with_inner_functions(value.function), kernel=False, reordered=value.reordered)
    return value.code


def _digest(function: FunctionType) -> str:
    """Of what a kernel's machine code is made of: its bytecode and constants, and those of all it inlines."""
    parts = "\n".join(_ingredients(function, seen=set()))
    return blake2b(parts.encode(), digest_size=6).hexdigest()


def _ingredients(function: FunctionType, seen: set[FunctionType]) -> Iterator[str]:
    if function in seen:
        return
    seen.add(function)
    yield from _bytecode(function.__code__)
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, Inlined):
            yield str(value.reordered)
            yield from _ingredients(value.function, seen)
        elif (definition := getattr(value, "_defn", None)) is not None:
            # One of Numba's intrinsics, a function that writes instructions: with whatever helpers its file has.
            yield Path(definition.__code__.co_filename).read_text(encoding="utf-8")
        else:
            # Numba freezes globals. Modules and builtins come with Python and Numba, whose versions its cache knows.
            yield name if callable(value) or isinstance(value, ModuleType) else f"{name} = {value!r}"


def _bytecode(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield repr(code.co_varnames)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _bytecode(constant)
        else:
            yield repr(constant)

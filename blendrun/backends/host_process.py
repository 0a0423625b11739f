"""The process behind `blendrun.backends.host`: `python -m blendrun.backends.host_process FD`."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

from blendrun.backends.host import Ended, bug, serve
from blendrun.backends.options import RunOptions
from blendrun.backends.session import exit_code, run_job
from blendrun.engine.kept import KeptEngines
from blendrun.errors import EXIT_OK, BlendrunError, InterruptedRunError
from blendrun.events import ignore
from blendrun.runner.stop import Stopped, stopping_by_exception

# A run that was told to stop may take so long; then the host goes all the same, and what it journalled is kept.
_LAST_S = 25.0
# A process that the caller has forked keeps its end of the connection open: that it is gone is looked for, too.
_LOOK_MS = 500


def main() -> None:
    descriptor = int(sys.argv[1])
    # Between runs there is nothing to stop. A run has handlers of its own.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_caller, args=(os.dup(descriptor), int(sys.argv[2])), daemon=True).start()
    engines = KeptEngines()
    try:
        # Where nobody hears it any more, there is nothing to go on with.
        with suppress(ConnectionError):
            serve(descriptor, lambda options, began: _run(options, began, engines), engines.close)
    finally:
        engines.close()


def _run(given: dict[str, Any], began: Callable[[], None], engines: KeptEngines) -> Ended:
    """began: called once a stop signal ends this and not nothing."""
    try:
        with stopping_by_exception():
            began()
            return _ended(given, engines)
    except BlendrunError as error:
        return Ended(error.exit_code, str(error))
    except Stopped as stopped:
        # It came while handlers were given back.
        return Ended(stopped.error.exit_code, str(stopped.error))
    except KeyboardInterrupt:
        return Ended(InterruptedRunError.exit_code, "interrupted")
    except Exception as error:  # noqa: BLE001  # one job's failure must not cost the next one its host
        traceback.print_exc()
        return bug(error)


def _ended(given: dict[str, Any], engines: KeptEngines) -> Ended:
    options = RunOptions.of(given)
    summary = run_job(options, nullcontext(ignore), engines)
    code = exit_code(summary, options)
    failed = f"{summary.counts.failed:,} of {summary.counts.total:,} lines failed: see {summary.errors}"
    return Ended(code, "" if code == EXIT_OK else failed)


def _end_with_caller(descriptor: int, caller: int) -> None:
    """Whoever started this process is gone: a run stops, in a moment or at once."""
    connection = socket.socket(fileno=descriptor)
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP | select.POLLHUP)
    while not poll.poll(_LOOK_MS) and os.getppid() == caller:
        pass
    with suppress(OSError):
        # Nobody will say any more; what waits for it has its end.
        connection.shutdown(socket.SHUT_RD)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_LAST_S)
    os._exit(1)


if __name__ == "__main__":
    main()

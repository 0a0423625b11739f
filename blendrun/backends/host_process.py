"""The process behind `blendrun.backends.host`: `python -m blendrun.backends.host_process FD`."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
import traceback
from contextlib import nullcontext
from typing import Any

from blendrun.backends.host import Ended, bug, serve
from blendrun.backends.options import RunOptions
from blendrun.backends.session import exit_code, run_job
from blendrun.engine.kept import KeptEngines
from blendrun.errors import EXIT_OK, BlendrunError
from blendrun.events import ignore

# A run that was told to stop may take so long; then the host goes all the same, and what it journalled is kept.
_LAST_S = 25.0


def main() -> None:
    descriptor = int(sys.argv[1])
    # Between runs there is nothing to stop. A run has handlers of its own.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_caller, args=(os.dup(descriptor),), daemon=True).start()
    engines = KeptEngines()
    try:
        serve(descriptor, lambda options: _run(options, engines), engines.close)
    finally:
        engines.close()


def _run(given: dict[str, Any], engines: KeptEngines) -> Ended:
    try:
        options = RunOptions.of(given)
        summary = run_job(options, nullcontext(ignore), engines)
    except BlendrunError as error:
        return Ended(error.exit_code, str(error))
    except Exception as error:  # noqa: BLE001  # one job's failure must not cost the next one its host
        traceback.print_exc()
        return bug(error)
    code = exit_code(summary, options)
    failed = f"{summary.counts.failed:,} of {summary.counts.total:,} lines failed: see {summary.errors}"
    return Ended(code, "" if code == EXIT_OK else failed)


def _end_with_caller(descriptor: int) -> None:
    """Whoever started this process is gone: a run stops, in a moment or at once."""
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP | select.POLLHUP)
    poll.poll()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_LAST_S)
    os._exit(1)


if __name__ == "__main__":
    main()

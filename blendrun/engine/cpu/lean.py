"""Start faster: keep libraries that only a GPU needs out of the engine's processes.

Importing flashinfer takes a third of SGLang's import time, in the engine process and again in each of the two that it
spawns; on a CPU nothing of it can run. Import this module before sglang; a spawned process imports the main module of
its parent first, so that it passes here too.
"""

from __future__ import annotations

import os
import sys
from typing import Any, cast

from blendrun.engine.settings import CPU_PLATFORM

# None in sys.modules makes `import flashinfer` raise ImportError, which SGLang takes as not installed.
if os.environ.get("SGLANG_PLATFORM") == CPU_PLATFORM:
    cast(dict[str, Any], sys.modules).setdefault("flashinfer", None)

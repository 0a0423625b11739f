"""Names of choices, for options and code alike. Nothing is imported here, so that `--help` loads nothing."""

from __future__ import annotations

from enum import StrEnum

# On a command line: leave it to the plan, or to the machine. In code that is None.
AUTO = "auto"


class EngineName(StrEnum):
    """sglang: the real runtime. replay: no model; placeholder answers on a virtual clock. Each is a module of
    `blendrun.backends`.
    """

    SGLANG = "sglang"
    REPLAY = "replay"


class OrderName(StrEnum):
    """given: as the input has them. shuffled: a permutation that is the same in every run. sorted: depth first through
    the prefix tree. lof: longest expected output first. blended: the dual scan. Each has its rule in
    `blendrun.blend.orders`.
    """

    GIVEN = "given"
    SHUFFLED = "shuffled"
    SORTED = "sorted"
    LOF = "lof"
    BLENDED = "blended"


class LiveOrder(StrEnum):
    """What `bench live` runs beside the orders. dfs-weight: SGLang's own order over the whole job. lpm: SGLang's own,
    over a window of 128, beyond which it does not look. gated: depth first with blendrun's gate alone. auto: the plan
    that `blendrun run` would make.
    """

    DFS_WEIGHT = "dfs-weight"
    LPM = "lpm"
    GATED = "gated"
    AUTO = "auto"


# What a blend has to beat: orders on SGLang as it comes, and SGLang's own.
SIMPLE_ORDERS = (*(name for name in OrderName if name is not OrderName.BLENDED), LiveOrder.DFS_WEIGHT, LiveOrder.LPM)
# With blendrun's plug-in in the scheduler.
PLUGGED_ORDERS = (LiveOrder.GATED, OrderName.BLENDED, LiveOrder.AUTO)


class Overlap(StrEnum):
    """The overlap ladder: how prefill and decode share a step.

    exclusive: a step is prefill or decode (L0, SGLang's default). mixed: a step's prefill chunk and decode rows share
    one pass over the weights, attention comes after (L1, mixed chunks). pdmux: prefill and decode run at the same time
    on two parts of the device (L2, SM split).
    """

    EXCLUSIVE = "exclusive"
    MIXED = "mixed"
    PDMUX = "pdmux"


class LengthMode(StrEnum):
    """What output lengths may be guessed from. auto: everything but an oracle. reference: an oracle's length where a
    line has one, else as auto. prior: the bounds alone, for comparison.
    """

    AUTO = "auto"
    REFERENCE = "reference"
    PRIOR = "prior"


class DeviceName(StrEnum):
    """Where the engine runs; auto: a GPU if this machine has one."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"


class Purpose(StrEnum):
    """What an engine is started for. generate: answers are decoded, and prompts may be scored. embed: prompts are read,
    and answered with a vector or with what the model's head says.
    """

    GENERATE = "generate"
    EMBED = "embed"


class UnknownFields(StrEnum):
    """What becomes of a line with a field that would have no effect. error: it is an error line that names the field.
    warn: it is answered without, and the run says how many lines there were.
    """

    ERROR = "error"
    WARN = "warn"


class Dedupe(StrEnum):
    """Which of equal requests are asked once. auto: those whose answer is determined. on: also those whose answer is
    drawn. off: none.
    """

    AUTO = "auto"
    ON = "on"
    OFF = "off"

"""Fields of SGLang's request models that a line of a job may not use, each with its reason.

A line comes from a file that others may have written. What would let it run code, open an address, enter the state of
another request or take the place of blendrun's own plan is refused by name, whatever the engine was started with.
"""

from __future__ import annotations

from typing import Any

from blendrun.errors import ErrorCode, LineError

_NO_ROUTING = "requests are handed out by blendrun"
_NO_SESSION = "each line stands alone; put the whole conversation into `messages`"
_NO_ADDRESS = "a line must not name an address that the engine opens"

REFUSED_FIELDS = {
    "custom_logit_processor": "it is pickled code, and a line must not bring code",
    "bootstrap_host": _NO_ADDRESS,
    "bootstrap_port": _NO_ADDRESS,
    "bootstrap_room": _NO_ADDRESS,
    "routed_dp_rank": _NO_ROUTING,
    "data_parallel_rank": _NO_ROUTING,
    "disagg_prefill_dp_rank": _NO_ROUTING,
    "priority": "the order is that of the run (--order)",
    "rid": "the engine's request ids are blendrun's own; `custom_id` names the request",
    "session_id": _NO_SESSION,
    "session_params": _NO_SESSION,
}
# The plan of a request travels in `custom_params` (blendrun.engine.scheduler.planned), and so do notes of SGLang's own.
_CUSTOM_PARAMS = frozenset(("thinking_budget",))


def check_fields(body: dict[str, Any]) -> None:
    """Raises LineError. A field that is null is left out, as in OpenAI's schema."""
    for name in REFUSED_FIELDS.keys() & body.keys():
        if body[name] is not None:
            raise _refuse(f"`{name}` is not taken: {REFUSED_FIELDS[name]}")
    _check_custom_params(body.get("custom_params"))
    _check_template_kwargs(body.get("chat_template_kwargs"))


def _check_custom_params(params: object) -> None:
    if params is None:
        return
    if not isinstance(params, dict):
        raise _refuse("`custom_params` must be an object")
    if foreign := sorted(params.keys() - _CUSTOM_PARAMS):
        raise _refuse(
            f"`custom_params.{foreign[0]:.40}` is not taken: blendrun's own plan travels there; "
            f"a line may set {', '.join(sorted(_CUSTOM_PARAMS))}"
        )


def _check_template_kwargs(kwargs: object) -> None:
    if kwargs is None:
        return
    if not isinstance(kwargs, dict):
        raise _refuse("`chat_template_kwargs` must be an object")
    if kwargs.get("chat_template") is not None:
        raise _refuse(
            "`chat_template_kwargs.chat_template` is not taken: a template is code; give one for all lines with "
            "--engine-arg chat_template=FILE"
        )


def must_be(name: str, what: str, value: object) -> LineError:
    """An `invalid_request` error of a field that is something else."""
    return _refuse(f"`{name}` must be {what}, not {value!r:.40}")


def refuse_field(name: str, why: str) -> LineError:
    """An `invalid_request` error that names a field and says why it cannot be as it is."""
    return _refuse(f"`{name}`: {why}")


def _refuse(message: str) -> LineError:
    return LineError(ErrorCode.INVALID_REQUEST, message)

"""Why an order was chosen and what the job takes with it, in the sentences that a plan, a run and the page share."""

from __future__ import annotations

from collections.abc import Mapping

from blendrun.names import OrderName
from blendrun.text import in_one_unit

# Simulated times closer than this are equal, and the simpler order is chosen.
TIE = 0.005
# Orders no further apart than this make no difference worth naming.
_ALIKE = 0.01
_WORDS = {
    OrderName.GIVEN: "file order",
    OrderName.SHUFFLED: "shuffled order",
    OrderName.SORTED: "depth first (shared prefixes together)",
    OrderName.LOF: "longest answers first",
    OrderName.BLENDED: "the blend",
}
NOT_CALIBRATED = "Not calibrated, real steps take longer."


def order_in_words(order: OrderName | str) -> str:
    """What people call an order; its name where it has no other."""
    return next((words for name, words in _WORDS.items() if name == order), str(order))


def choice_sentence(chosen: OrderName, seconds: Mapping[OrderName, float]) -> str:
    """Why `chosen` was taken. seconds: of the orders there was a choice of, each on its best mode."""
    name, own = order_in_words(chosen), seconds[chosen]
    name = name[0].upper() + name[1:]
    others = {order: value for order, value in seconds.items() if order is not chosen}
    if not others:
        return f"{name} is the only order simulated."
    rival = min(others, key=lambda order: others[order])
    if max(others.values()) <= own * (1 + _ALIKE):
        beside = "others within 1 %"
    elif others[rival] <= own * (1 + TIE):
        beside = f"as fast as {order_in_words(rival)}, and simpler"
    else:
        mine, next_best = in_one_unit((own, others[rival]))
        much = next_best if next_best != mine else f"{100 * (others[rival] / own - 1):.1f} % longer"
        beside = f"next best, {order_in_words(rival)}: {much}"
    return f"{name} is best here ({beside})."


def time_sentence(seconds: float, plain_seconds: float, *, calibrated: bool) -> str:
    """What the job takes as planned, and in file order on SGLang as it comes.

    calibrated: whether steps of this model were ever measured on the machine.
    """
    mine, plain = in_one_unit((seconds, plain_seconds))
    found = f"With blendrun's scheduling: {mine}, plain SGLang: {plain}."
    return found if calibrated else f"{NOT_CALIBRATED} {found}"

"""A model of the engine's time: what any order would take on any machine, without running it.

outcome = simulate(tree, prompts, order, outputs, step_time(model, machine), Engine(pool.tokens))
portfolio = simulate_portfolio(tree, prompts, lengths, orders, [blend], model, machine)
"""

from blendrun.simulate.base import EXACT, Engine, Eviction, Outcome, Overlap, StepTime, Timeline
from blendrun.simulate.draw import draw_outputs
from blendrun.simulate.portfolio import BLENDRUN, EAGER, STOCK, Candidate, Feeding, Portfolio, simulate_portfolio
from blendrun.simulate.simulator import overlapped_seconds, simulate
from blendrun.simulate.steptime import step_time

__all__ = [
    "BLENDRUN",
    "EAGER",
    "EXACT",
    "STOCK",
    "Candidate",
    "Engine",
    "Eviction",
    "Feeding",
    "Outcome",
    "Overlap",
    "Portfolio",
    "StepTime",
    "Timeline",
    "draw_outputs",
    "overlapped_seconds",
    "simulate",
    "simulate_portfolio",
    "step_time",
]

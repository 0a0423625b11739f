"""A plan of a job of a few groups, on a published machine."""

from __future__ import annotations

from collections.abc import Callable

from blendrun.cost.hardware import load_hardware, machine
from blendrun.models.cards import load_card
from blendrun.planner.findings import Finding, Severity
from blendrun.planner.plan import Choice, Structure, cost_structure, make_plan
from blendrun.report.schemas.plan import PlanReport
from blendrun.report.schemas.planned import plan_report
from tests.blend.jobs_of_lengths import small_job


def plan_of_small_job(name: Callable[[int], str]) -> PlanReport:
    units = [[group] * 60 + [1000 + group, each] for group in range(1, 9) for each in range(6)]
    units += [[2000 + each] * 5 for each in range(12)]
    job = small_job(units, [4] * 48 + [200] * 12)
    costed = cost_structure(
        Structure(job.prompts, job.tree, job.lengths), load_card("llama-3-8b"), machine(load_hardware("a100-80g"))
    )
    plan = make_plan(costed, Choice())

    class Described:
        model_name, kind, lines, refused, left_out = "llama-3-8b", "job", 60, 0, 0
        copies, cached, only_read = 0, None, 0
        findings = (Finding(Severity.RISK, "cut_short", 3, None, "a warning"),)

        @property
        def name(self) -> Callable[[int], str]:
            return name

        @property
        def words(self) -> Callable[[int], str]:
            return lambda number: f"Text of {number}"

    return plan_report(plan, Described())

"""`blendrun report`: one self-contained HTML page of runs and plans."""

from blendrun.report.page.page import make_page
from blendrun.report.page.subject import Subject, plan_subject, run_subject

__all__ = ["Subject", "make_page", "plan_subject", "run_subject"]

"""What this machine really does: rates, and the constants of a step's time, measured on the engine that runs jobs.

The parent process stays free of torch: raw rates come from a child (`python -m blendrun.calibrate.worker`), steps from
the engine's own process.
"""

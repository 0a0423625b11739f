"""The pipeline from request lines to a Plan, for `blendrun plan` and for a run."""

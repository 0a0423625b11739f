"""`blendrun report`: one self-contained HTML page of runs and plans."""

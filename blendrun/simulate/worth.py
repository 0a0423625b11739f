"""The smallest prefix that a request waits for while another one computes it."""

from __future__ import annotations

# Tokens to be won; SGLang's own threshold for the same question (lpm's in-batch rule). The gate of blendrun's scheduler
# plug-in goes by it, and so does the simulator: what a plan counts as cached, a run can find.
WORTH_TOKENS = 32

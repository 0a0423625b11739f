"""blendrun: finish a file of LLM requests in the least time the hardware allows, and lose nothing."""

__version__ = "0.1.0"

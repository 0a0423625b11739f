"""SGLang's runtime on a machine without a GPU: an out-of-tree platform and hooks on attention and layers.

All are found by SGLang through entry points and stay inert until the engine process selects them by name
(`SGLANG_PLATFORM=blendrun_cpu`, see `blendrun.engine.settings`). Installing blendrun changes no other SGLang use.
"""

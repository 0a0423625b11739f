"""What blendrun adds to SGLang's scheduler: one hook a file, inert unless the engine process asks for it.

`plugin` is the entry point, `hooks` makes each hook prove itself and fall back to SGLang's own code when it fails.
"""

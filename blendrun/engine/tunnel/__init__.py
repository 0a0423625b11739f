"""SGLang's own scheduler with a model that computes nothing: what it does at a GPU's size, on any machine."""

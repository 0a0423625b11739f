"""How long answers will be: what is known, what was seen, what can be guessed.

history = History.open().recall(model.identity, prompts.cluster)
lengths = estimate(prompts, tree, samples=Samples(prompt, tokens, finished), history=history)
"""

"""How long answers will be: what is known, what was seen, what can be guessed."""

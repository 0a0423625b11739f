"""`blendrun serve`: OpenAI's Files and Batches API over one machine; batches that wait are planned together."""

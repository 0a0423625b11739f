"""Servers that already run, as engines: anything that speaks OpenAI's API."""

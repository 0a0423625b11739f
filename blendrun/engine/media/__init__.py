"""Media that lines name: an engine in front of the engine, which fetches them."""

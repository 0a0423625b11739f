"""From one typed request for a run to what the runner takes: a backend a kind of engine, and a session around it."""

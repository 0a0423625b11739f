"""One run while it works: its invocation, its replicas, what is handed over and what follows a death."""

"""What a request costs the machine: arithmetic, KV reads, their ratio."""

"""What other tools read: metrics, traces, pictures."""

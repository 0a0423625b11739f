"""What the rounds on a GPU need inside the engine."""

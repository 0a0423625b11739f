"""From requests to prompts in tokens, exactly as the runtime makes them."""

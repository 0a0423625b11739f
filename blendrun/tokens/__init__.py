"""From requests to prompts in tokens, exactly as the runtime makes them.

tokenizer = load_tokenizer(model.path)
tokenized = build_prompts(job, tokenizer, context_length=8192)
tokenized.prompts, tokenized.over_context, tokenized.messages
"""

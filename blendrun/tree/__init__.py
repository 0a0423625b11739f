"""The resource-aware radix tree: arrays in depth-first order, so that a sub-tree is a range.

tree = build_tree(prompts)
saved = lru_hits(tree, order, capacity_tokens).sum()
"""

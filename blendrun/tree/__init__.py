"""The resource-aware radix tree: arrays in depth-first order, so that a sub-tree is a range."""

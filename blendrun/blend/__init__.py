"""From a tree with its costs to orders: the simple ones, and the blend."""

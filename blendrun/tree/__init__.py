"""The resource-aware radix tree: arrays in depth-first order, so that a sub-tree is a range.

tree = build_tree(prompts)
saved = lru_hits(tree, order, capacity_tokens).sum()
"""

from blendrun.tree.base import PrefixTree
from blendrun.tree.build import build_tree
from blendrun.tree.compiled import load_kernels, needs_compiling
from blendrun.tree.heavy import HeavyPrefix, heaviest_prefixes
from blendrun.tree.hits import lru_hits, path_hits
from blendrun.tree.shared import SharedPrefix, common_prefix

__all__ = [
    "HeavyPrefix",
    "PrefixTree",
    "SharedPrefix",
    "build_tree",
    "common_prefix",
    "heaviest_prefixes",
    "load_kernels",
    "lru_hits",
    "needs_compiling",
    "path_hits",
]

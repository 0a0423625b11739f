"""The text of a prefix: what its requests have in common, told from the first and the last of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from blendrun.text import cut, printable
from blendrun.tree.base import PrefixTree

# Characters of a prompt that are compared, and of a prefix that are kept.
_COMPARED = 1 << 16
KEPT = 60
_SHORT, _WORDS, _LITTLE = 16, 3, 12
_LONGEST_WORD = 24


class PrefixTexts:
    """Texts of the nodes of a tree. words: the text of a prompt number as its request gives it; empty where nobody
    knows. What a chat template adds is no part of it.
    """

    def __init__(self, tree: PrefixTree, words: Callable[[int], str]) -> None:
        self._tree = tree
        self._words = lru_cache(maxsize=1024)(lambda number: words(number)[:_COMPARED])

    def of(self, node: int) -> str:
        """The beginning of a node's own segment, KEPT characters at most, on one line. The root has none."""
        if node == 0:
            return ""
        whole = self._whole(node)
        begin = len(self._whole(int(self._tree.parent[node])))
        if begin < len(whole) and begin <= _LITTLE:
            # A few words that all begin with are no name for what is above, and belong to this one's.
            begin = 0
        own = " ".join(whole[begin : begin + 4 * KEPT].split())
        if begin and 0 < len(own) < _SHORT:
            # A word alone says little: with what stands before it.
            own = f"… {' '.join(whole[max(begin - 2 * _SHORT, 0) : begin].split()[-_WORDS:])} {own}"
        return cut(printable(own), KEPT)

    def _whole(self, node: int) -> str:
        """From the root to the node's end."""
        if node == 0:
            return ""
        # Neighbours in the tree are sorted, so what the first and the last have in common all have.
        tree = self._tree
        ends = tree.prompt[tree.leaf_begin[node]], tree.prompt[tree.leaf_end[node] - 1]
        return _in_common(*(self._words(int(number)) for number in ends))


def _in_common(one: str, other: str) -> str:
    """What both texts begin with, up to the last whole word: texts part within words where tokens part before them."""
    least, most = 0, min(len(one), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        if one[least:middle] == other[least:middle]:
            least = middle
        else:
            most = middle - 1
    end = least
    if not any(least < len(text) and text[least].isalnum() for text in (one, other)):
        return one[:least]
    # Where words have no spaces between them, there is none to go back to.
    while end > max(least - _LONGEST_WORD, 0) and one[end - 1].isalnum():
        end -= 1
    return one[: end if end == 0 or not one[end - 1].isalnum() else least]

"""Loads the compiled loops before the first request: the first time ever they are compiled, for some seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .automata.pushdown import Pushdown
from .json_schema.common_languages import load_common_languages
from .languages.text_lowering import any_string_block
from .masks.token_steps import find_loops
from .masks.token_trie import Vocabulary
from .masks.trie_nodes import add_twins
from .matcher import GrammarMatcher


@dataclass(frozen=True)
class _Strings:
    """A grammar that needs every loop: the inside of a short string."""

    pushdown: Pushdown


def load_compiled_loops(vocabulary: Vocabulary) -> None:
    """Makes a few masks, so that each loop was called once. Common languages are built as well."""
    load_common_languages()
    pushdown = Pushdown()
    pushdown.start_row = pushdown.counted(pushdown.add_block(any_string_block(1)), 0, 3)
    matcher = GrammarMatcher(_Strings(pushdown), vocabulary)
    mask = matcher.mask().copy()
    for text in (b"a", b'"'):
        if text in vocabulary.tokens:
            matcher.advance(vocabulary.tokens.index(text))
    add_twins(mask, vocabulary.twins)
    loops = np.zeros(len(vocabulary.tokens), np.uint8)
    find_loops(pushdown.tables.addresses, pushdown.start_row, -1, *vocabulary.places, loops)

"""zqserve's guided decoding as an engine of the kit that measures such engines (schemas, regexes; masks, steps).

harness.py run --engine bench/guided_engine.py:Zqserve --data DIR --out FILE
harness.py run --engine 'bench/guided_engine.py:Zqserve:{"any_order": true}' ...
"""

from __future__ import annotations

import gc
import json
from typing import Any

from harness import Engine, Grammar, Matcher

from zqserve.guided.grammar import GrammarSpec, compile_grammar
from zqserve.guided.masks.token_trie import Vocabulary
from zqserve.guided.matcher import GrammarMatcher
from zqserve.guided.warm_up import load_compiled_loops


class Zqserve(Engine):
    """Compiles in this process; options are fields of GrammarSpec."""

    def __init__(self, tok: Any, **options: Any) -> None:
        super().__init__(tok)
        self._vocabulary = Vocabulary(tok.tokens, [tok.eos_id])
        self._options = options
        # The compiled loops are loaded, and what stays is kept from the garbage collector, as in a server.
        load_compiled_loops(self._vocabulary)
        self.compile_json({"type": "array", "items": {"type": "string"}}).matcher().mask()
        gc.collect()
        gc.freeze()
        # As the engine sets them; and the process that compiles collects when its answer is out.
        gc.set_threshold(20_000, 20, 20)

    def compile_json(self, schema: Any) -> Grammar:
        """A JSON Schema."""
        return self._grammar("json", json.dumps(schema))

    def compile_regex(self, regex: str) -> Grammar:
        """A regex that the whole text must match."""
        return self._grammar("regex", regex)

    def compile_choice(self, choices: list[str]) -> Grammar:
        """One of some texts."""
        return self._grammar("choice", json.dumps(choices))

    def _grammar(self, kind: Any, text: str) -> Grammar:
        grammar = compile_grammar(GrammarSpec(kind=kind, text=text, **self._options))
        return Grammar(lambda: ZqserveMatcher(GrammarMatcher(grammar, self._vocabulary)))


class ZqserveMatcher(Matcher):
    """One output."""

    def __init__(self, matcher: GrammarMatcher) -> None:
        self.mask = matcher.mask
        self.advance = matcher.advance
        self.accepting = matcher.accepting

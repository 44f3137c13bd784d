"""Guided decoding: a grammar in, token masks out. A library that knows neither the server nor the engine.

A regex, a choice, a JSON Schema or a grammar is compiled to a lazily expanded pushdown automaton over bytes
(`grammar.compile_grammar`); a `matcher.GrammarMatcher` follows one output through it and tells which tokens of a
`token_trie.Vocabulary` may come next. May import: nothing of zqserve.
"""

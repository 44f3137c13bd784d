"""Context-free grammars (GBNF, Lark), choices, structural tags."""

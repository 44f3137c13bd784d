"""The pushdown automaton over bytes: rows, cells, calls, counts, and what runs it."""

"""Killable processes for work that comes from outside: grammars and templates."""

"""Tool calling: what a request offers and asks for, and the parsers that read calls out of a text."""

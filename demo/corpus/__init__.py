"""The text of the demo model, an idea a file; make_corpus.py puts it together."""

"""Embeddings, scores and classes: models that give a vector and not a text."""

"""Guided decoding in the engine: what follows each answer through its grammar."""

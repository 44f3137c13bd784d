"""The front-end: HTTP, authentication, templates, tokenisation, streaming.

Never imports torch or transformers: a worker starts in about a second and stays small. May import the torch-free
modules at the bottom of `engine_core` (`config`, `errors`, `messages`, `sampling_params`).
"""

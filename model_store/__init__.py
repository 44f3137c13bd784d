"""`zqserve models`: what models this machine has, what they are, whether they can be served, and getting more.

The store is the standard Hugging Face cache; a directory is a model too. Nothing here imports torch: a model is judged
by its JSON files and by the headers of its weights.
"""

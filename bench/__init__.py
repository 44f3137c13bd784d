"""Measures zqserve, and other servers beside it: `python -m bench` lists what there is."""

"""The shapes of the HTTP interface as msgspec Structs, one module for each group of endpoints.

Requests are decoded straight into them, answers and stream events are encoded from them. No behaviour beyond
the check of a field against itself.
"""

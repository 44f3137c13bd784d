"""Constraints of requests, and the processes that compile them."""

"""Requests, their order and their blocks."""

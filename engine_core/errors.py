"""Errors that a caller can cause, with the facts they carry. Torch-free: shared by the front-end and the engine."""

from __future__ import annotations


class InvalidRequestError(ValueError):
    """A value of a request is wrong. `param` is the name of the field; the message names the limit."""

    def __init__(self, param: str | None, message: str) -> None:
        super().__init__(message)
        self.param = param
        self.message = message


class UnsupportedModelError(RuntimeError):
    """The model cannot be served correctly; the message says why and what to do."""


class EngineDeadError(RuntimeError):
    """The engine core stopped; the request it was serving cannot be finished."""


class RequestFailedError(RuntimeError):
    """The engine goes on, but could not compute this request; the message says why."""


class InvariantError(RuntimeError):
    """The engine's accounts contradict themselves: nothing that it computes can be trusted any more."""


NO_TOKEN_LEFT = "No token is left that all fields of the request allow."
"""Why the engine gave up a request whose own fields contradict each other: the caller's mistake, but found late."""
GRAMMAR_TOO_COMPLEX = "The grammar is too complex"
"""How the reason begins where following a constraint takes too much: that shows as late."""
CALLERS_MISTAKES = (NO_TOKEN_LEFT, GRAMMAR_TOO_COMPLEX)
"""Beginnings of reasons for which the engine gave up a request, that are no fault of the server."""

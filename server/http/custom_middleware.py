"""Middleware of the operator's own, named on the command line by `--middleware module.name`."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, cast

from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware


def load_middleware(path: str) -> Middleware:
    """A class is taken as ASGI middleware, an async function as `(request, call_next)`.

    Raises ValueError, naming the path, for what cannot be imported or is neither.
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise ValueError(f"--middleware takes module.name, got {path!r}.")
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--middleware {path}: {error}.") from None
    if inspect.isclass(found):
        return Middleware(cast("Any", found))
    if inspect.iscoroutinefunction(found):
        return Middleware(BaseHTTPMiddleware, dispatch=found)
    raise ValueError(f"--middleware {path} is neither a class nor an async function.")

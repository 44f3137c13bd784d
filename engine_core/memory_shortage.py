"""A step for which the memory does not suffice is done in smaller parts, down to single requests.

Used by the cores around their runners. What a step needs beside weights and cache depends on what its requests ask for
(log-probabilities of many tokens, above all), so one of them may ask for too much: then it alone fails. Torch-free.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)

OUT_OF_MEMORY = "The engine ran out of memory over this request."


def run_in_parts(
    run: Callable[[list[Item]], list[Result]], items: list[Item], failed: Callable[[Item], Result]
) -> list[Result]:
    """What `run` makes of the items, in order; `failed` stands in for an item that is too much on its own.

    `run` must bear being called again with items that it has not finished.
    """
    results = _run(run, items)
    if results is not None:
        return results
    if len(items) == 1:
        logger.error("The memory does not suffice for one request; it is ended.")
        return [failed(items[0])]
    logger.warning("The memory does not suffice for a step of %d requests; it is done in two parts.", len(items))
    half = len(items) // 2
    return run_in_parts(run, items[:half], failed) + run_in_parts(run, items[half:], failed)


def _run(run: Callable[[list[Item]], list[Result]], items: list[Item]) -> list[Result] | None:
    """None when the memory does not suffice; nothing of the attempt is held any more when this returns."""
    try:
        return run(items)
    except Exception as error:
        if not _is_shortage(error):
            raise
        return None


def _is_shortage(error: Exception) -> bool:
    """Python's and NumPy's, a device's, and what torch says of the host's."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error))
    )

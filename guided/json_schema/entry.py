"""How a JSON value begins: what `json_machine` and the machines of arrays and objects tell each other."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One way in which a value begins: after `byte` (with `returns` pushed, the last on top) goes on in `row`."""

    byte: int
    returns: tuple[int, ...]
    row: int

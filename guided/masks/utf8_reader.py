"""Reads UTF-8 byte by byte, in compiled loops."""

from __future__ import annotations

from .compiled_loops import compiled

# States of a UTF-8 reader between bytes: 0 between characters, 1..3 that many bytes to come, then those in which the
# second byte is restricted.
_AFTER_E0, _AFTER_ED, _AFTER_F0, _AFTER_F4 = 4, 5, 6, 7


@compiled
def utf8_step(state, byte):
    """The state after a byte that is not ASCII or is inside a character; -1 if it is not UTF-8."""
    if state == 0:
        if 0xC2 <= byte <= 0xDF:
            return 1
        if byte == 0xE0:
            return _AFTER_E0
        if byte == 0xED:
            return _AFTER_ED
        if 0xE1 <= byte <= 0xEF:
            return 2
        if byte == 0xF0:
            return _AFTER_F0
        if 0xF1 <= byte <= 0xF3:
            return 3
        return _AFTER_F4 if byte == 0xF4 else -1
    low, high = 0x80, 0xBF
    if state == _AFTER_E0:
        low = 0xA0
    elif state == _AFTER_ED:
        high = 0x9F
    elif state == _AFTER_F0:
        low = 0x90
    elif state == _AFTER_F4:
        high = 0x8F
    if not low <= byte <= high:
        return -1
    if state <= 3:
        return state - 1
    return 1 if state <= _AFTER_ED else 2

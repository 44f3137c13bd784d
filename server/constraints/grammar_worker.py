"""The process that compiles grammars: `python -m zqserve.server.constraints.grammar_worker`, which
`grammar_compiler.py` starts.

A grammar comes from outside and may cost any amount of time and memory, so it is compiled where it can be killed and
where memory is limited. Takes and gives msgpack Structs as frames (`worker_frames.py`). It ends with its input, with
its parent, and after work that left it large.
"""

from __future__ import annotations

import gc
import importlib
import logging
import pickle
import sys

import msgspec

from ...engine_core.log import configure_logging, where
from ...guided.errors import GrammarError
from ..workers.worker_frames import limit_memory, open_frames, read_frame, write_frame
from .constraint import Constraint

logger = logging.getLogger(__name__)

MAX_GRAMMAR_BYTES = 8 << 20
"""Largest compiled grammar: the engine stops for as long as it takes to read one."""


class Compiled(msgspec.Struct, tag="compiled"):
    """The pickled grammar."""

    data: bytes
    is_last: bool = False
    """Whether the process ends now."""


class Refused(msgspec.Struct, tag="refused"):
    """Why there is none, in words for the user."""

    reason: str
    is_last: bool = False


Outcome = Compiled | Refused
decode_outcome = msgspec.msgpack.Decoder(Outcome).decode


def compile_constraint(constraint: Constraint) -> bytes:
    """The pickled grammar of a constraint; nothing for one that is only to be checked. Raises `GrammarError`."""
    from ...guided.grammar import GrammarSpec, compile_grammar

    if not constraint.text.isascii() and any("\ud800" <= char <= "\udfff" for char in constraint.text):
        raise GrammarError("invalid", "it holds half a surrogate pair, which is no text.")
    if constraint.check_only:
        _check_schema(constraint.text)
        return b""
    spec = GrammarSpec(
        kind=constraint.kind,
        text=constraint.text,
        whitespace_pattern=constraint.whitespace_pattern,
        any_whitespace=constraint.any_whitespace,
        additional_properties=constraint.additional_properties,
        any_order=constraint.any_order,
    )
    try:
        data = pickle.dumps(compile_grammar(spec), protocol=pickle.HIGHEST_PROTOCOL)
    except RecursionError:
        raise GrammarError("too_complex", "it is nested too deeply.") from None
    except OverflowError:
        raise GrammarError("too_complex", "its repetitions count too far.") from None
    if len(data) > MAX_GRAMMAR_BYTES:
        raise GrammarError("too_complex", f"it compiles to more than {MAX_GRAMMAR_BYTES >> 20} MiB.")
    return data


def _check_schema(text: str) -> None:
    """Refuse a schema that is not well-formed; what cannot be enforced is none of that."""
    from ...guided.json_schema.schema import read_schema

    try:
        read_schema(text)
    except GrammarError as error:
        if error.fault == "invalid":
            raise


def main() -> None:
    """Compile what comes until the input ends; arguments: the parent's process id, and bytes of memory to use."""
    configure_logging("info")
    parent_pid, memory = map(int, sys.argv[1:])
    requests, answers = open_frames(parent_pid)
    # All that a compilation needs is here before the memory is limited.
    importlib.import_module("...guided.grammar", __package__)
    from ...guided.json_schema.common_languages import load_common_languages

    load_common_languages()
    is_large = limit_memory(memory)
    decode = msgspec.msgpack.Decoder(Constraint).decode
    gc.disable()  # until an answer is out: a collection may take longer than a compilation
    write_frame(answers, b"")
    is_last = False
    while not is_last:
        frame = read_frame(requests)
        if frame is None:
            return
        outcome = _outcome(decode(frame), memory)
        # Caches and fragments that a large grammar leaves behind are given back by ending.
        is_last = outcome.is_last = outcome.is_last or is_large()
        write_frame(answers, msgspec.msgpack.encode(outcome))
        gc.collect()


def _outcome(constraint: Constraint, memory: int) -> Outcome:
    try:
        return Compiled(compile_constraint(constraint))
    except GrammarError as error:
        return Refused(str(error))
    except MemoryError:
        return Refused(f"compiling it takes more than {memory >> 20} MiB of memory.", is_last=True)
    except Exception as error:
        logger.error("A grammar (%s) could not be compiled: %s", constraint.kind, where(error))
        return Refused("the compiler failed over it.", is_last=True)


if __name__ == "__main__":
    main()

"""The process that renders chat templates of requests: `python -m zqserve.server.prompts.template_worker`, started by
`template_renderer.py`.

The sandbox counts loops, calls and characters, but one single operation may take any time and memory: a filter over a
long text, a wide format. So what a stranger wrote runs where it can be killed and where memory is limited. Takes
pickled `Rendering`s of the front-end and gives `Outcome`s as frames (`worker_frames.py`).
"""

from __future__ import annotations

import logging
import pickle
import sys

import msgspec

from ...engine_core.errors import InvalidRequestError
from ...engine_core.log import configure_logging, where
from ..workers.worker_frames import limit_memory, open_frames, read_frame, write_frame
from .chat_template import render

logger = logging.getLogger(__name__)


class Rendered(msgspec.Struct, tag="rendered"):
    """The text of the prompt."""

    text: str
    is_last: bool = False
    """Whether the process ends now."""


class Refused(msgspec.Struct, tag="refused"):
    """Why there is none, in words for the user."""

    param: str | None
    message: str
    is_last: bool = False


Outcome = Rendered | Refused
decode_outcome = msgspec.msgpack.Decoder(Outcome).decode


def main() -> None:
    """Render what comes until the input ends; arguments: the parent's process id, and bytes of memory to use."""
    configure_logging("warning")
    parent_pid, memory = map(int, sys.argv[1:])
    questions, answers = open_frames(parent_pid)
    is_large = limit_memory(memory)
    write_frame(answers, b"")
    is_last = False
    while not is_last and (question := read_frame(questions)) is not None:
        outcome = _outcome(question)
        # What a template leaves in caches and fragments is given back by ending.
        is_last = outcome.is_last = outcome.is_last or is_large()
        write_frame(answers, msgspec.msgpack.encode(outcome))


def _outcome(question: bytes) -> Outcome:
    try:
        # Made by the front-end.
        text = render(pickle.loads(question))
        text.encode()  # a template can write half a surrogate pair, which is no text
        return Rendered(text)
    except InvalidRequestError as error:
        return Refused(error.param, error.message)
    except UnicodeEncodeError:
        return Refused("chat_template", "The chat template makes what is no Unicode text: half a surrogate pair.")
    except MemoryError:
        return Refused("chat_template", "The chat template takes too much memory.", is_last=True)
    except Exception as error:
        logger.error("A chat template of a request could not be rendered: %s", where(error))
        return Refused("chat_template", "The chat template failed.", is_last=True)


if __name__ == "__main__":
    main()

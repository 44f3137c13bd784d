"""The content blocks of a message as they come into being: pieces of the answer in, blocks and stream events out.

The whole answer and the stream are made by the same steps, so that they say the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..protocol.messages import (
    Block,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    InputJsonDelta,
    MessageEvent,
    TextBlock,
    TextDelta,
    ToolUseBlock,
)
from ..tools.pieces import Content, Piece, ToolCallStart


class MessageOutput:
    """The blocks of one message; the last one may still grow.

    All methods return the events that tell a stream's client what happened.
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        """Those that are complete."""
        self._open: Block | None = None
        self._texts: list[str] = []
        """Of the open block: its text, or the JSON text of its input."""

    def add(self, pieces: Sequence[Piece]) -> list[MessageEvent]:
        """What comes next."""
        events: list[MessageEvent] = []
        for piece in pieces:
            if isinstance(piece, ToolCallStart):
                events += self.finish()
                events.append(self._begin(ToolUseBlock(piece.id, piece.name, {})))
                continue
            if isinstance(piece, Content):
                if not isinstance(self._open, TextBlock):
                    events += self.finish()
                    events.append(self._begin(TextBlock("")))
                delta = TextDelta(piece.text)
            else:
                delta = InputJsonDelta(piece.text)
            self._texts.append(piece.text)
            events.append(ContentBlockDelta(len(self.blocks), delta))
        return events

    def finish(self) -> list[MessageEvent]:
        """The open block is complete, or cut."""
        if self._open is None:
            return []
        event = ContentBlockStop(len(self.blocks))
        text = "".join(self._texts)
        if isinstance(self._open, TextBlock):
            self.blocks.append(TextBlock(text))
        else:
            self.blocks.append(ToolUseBlock(self._open.id, self._open.name, _object(text)))
        self._open = None
        self._texts = []
        return [event]

    @property
    def calls_tools(self) -> bool:
        """Whether a tool is called."""
        return any(isinstance(block, ToolUseBlock) for block in self.blocks)

    def _begin(self, block: Block) -> MessageEvent:
        self._open = block
        return ContentBlockStart(len(self.blocks), block)


def _object(text: str) -> dict[str, object]:
    """The input of a tool. A text that was cut makes none: the stop reason of such an answer is max_tokens."""
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError):
        return {}

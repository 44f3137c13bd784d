"""The output items of a response as they come into being: pieces of the answer in, items and stream events out.

The whole answer and the stream are made by the same steps, so that they say the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..protocol.chat import ChatTokenLogprob
from ..protocol.responses import (
    ContentPartAdded,
    ContentPartDone,
    FunctionCallArgumentsDelta,
    FunctionCallArgumentsDone,
    OutputFunctionCall,
    OutputItem,
    OutputItemAdded,
    OutputItemDone,
    OutputMessage,
    OutputText,
    OutputTextDelta,
    OutputTextDone,
    ResponseEvent,
    Status,
)
from ..tools.pieces import Content, Piece, ToolCallStart


class ResponseOutput:
    """The items of one response; the last one may still grow.

    All methods return the events that tell a stream's client what happened. What they hold is not changed later.
    """

    def __init__(self, suffix: str) -> None:
        """`suffix` ends the ids of the items: that of the response's id."""
        self.items: list[OutputItem] = []
        """Those that are done."""
        self._suffix = suffix
        self._open: _OpenMessage | _OpenCall | None = None
        self._logprobs: list[ChatTokenLogprob] = []
        """Of tokens whose text is still held back."""

    def add(self, pieces: Sequence[Piece], logprobs: Sequence[ChatTokenLogprob] = ()) -> list[ResponseEvent]:
        """What comes next; `logprobs` are those of the tokens that brought it."""
        self._logprobs += logprobs
        events: list[ResponseEvent] = []
        for piece in pieces:
            if isinstance(piece, Content):
                events += self._add_text(piece.text)
            elif isinstance(piece, ToolCallStart):
                events += self._close("completed")
                events += self._begin(_OpenCall(f"fc_{self._number()}", len(self.items), piece.id, piece.name))
            elif isinstance(self._open, _OpenCall):
                events.append(self._open.add(piece.text))
        return events

    def finish(self, status: Status) -> list[ResponseEvent]:
        """The answer is over; `status` is that of its last item. An answer without a word is an empty message."""
        events = self._add_text("") if self._logprobs or not (self.items or self._open) else []
        return events + self._close(status)

    def _add_text(self, text: str) -> list[ResponseEvent]:
        events: list[ResponseEvent] = []
        if not isinstance(self._open, _OpenMessage):
            events += self._close("completed")
            events += self._begin(_OpenMessage(f"msg_{self._number()}", len(self.items)))
        assert isinstance(self._open, _OpenMessage)
        logprobs, self._logprobs = self._logprobs, []
        if text or logprobs:
            events.append(self._open.add(text, logprobs))
        return events

    def _begin(self, item: _OpenMessage | _OpenCall) -> list[ResponseEvent]:
        self._open = item
        return item.begin()

    def _close(self, status: Status) -> list[ResponseEvent]:
        if self._open is None:
            return []
        item, events = self._open.end(status)
        self.items.append(item)
        self._open = None
        return events

    def _number(self) -> str:
        return f"{self._suffix}_{len(self.items)}"


class _OpenMessage:
    def __init__(self, id: str, output_index: int) -> None:
        self._id = id
        self._index = output_index
        self._texts: list[str] = []
        self._logprobs: list[ChatTokenLogprob] = []

    def begin(self) -> list[ResponseEvent]:
        empty = OutputMessage(id=self._id, status="in_progress", content=[])
        return [
            OutputItemAdded(output_index=self._index, item=empty),
            ContentPartAdded(item_id=self._id, output_index=self._index, part=OutputText(text="")),
        ]

    def add(self, text: str, logprobs: list[ChatTokenLogprob]) -> ResponseEvent:
        self._texts.append(text)
        self._logprobs += logprobs
        return OutputTextDelta(item_id=self._id, output_index=self._index, delta=text, logprobs=logprobs)

    def end(self, status: Status) -> tuple[OutputMessage, list[ResponseEvent]]:
        part = OutputText(text="".join(self._texts), logprobs=self._logprobs)
        item = OutputMessage(id=self._id, status=status, content=[part])
        return item, [
            OutputTextDone(item_id=self._id, output_index=self._index, text=part.text, logprobs=self._logprobs),
            ContentPartDone(item_id=self._id, output_index=self._index, part=part),
            OutputItemDone(output_index=self._index, item=item),
        ]


class _OpenCall:
    def __init__(self, id: str, output_index: int, call_id: str, name: str) -> None:
        self._id = id
        self._index = output_index
        self._call_id = call_id
        self._name = name
        self._arguments: list[str] = []

    def begin(self) -> list[ResponseEvent]:
        return [OutputItemAdded(output_index=self._index, item=self._item("in_progress"))]

    def add(self, arguments: str) -> ResponseEvent:
        self._arguments.append(arguments)
        return FunctionCallArgumentsDelta(item_id=self._id, output_index=self._index, delta=arguments)

    def end(self, status: Status) -> tuple[OutputFunctionCall, list[ResponseEvent]]:
        item = self._item(status)
        return item, [
            FunctionCallArgumentsDone(item_id=self._id, output_index=self._index, arguments=item.arguments),
            OutputItemDone(output_index=self._index, item=item),
        ]

    def _item(self, status: Status) -> OutputFunctionCall:
        arguments = "".join(self._arguments)
        return OutputFunctionCall(
            id=self._id, call_id=self._call_id, name=self._name, arguments=arguments, status=status
        )

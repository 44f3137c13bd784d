"""The paths of the Anthropic Messages API."""

from __future__ import annotations

from ..http.endpoint import Endpoint, ServerSentEvents
from ..protocol import messages as protocol
from ..protocol.messages import Message, MessagesRequest, TokenCount, TokenCountRequest
from ..services import Services
from .messages import Messages, MessageTokenCount

_CONVERSATION = [{"role": "user", "content": "What is the capital of France?"}]
_EVENTS = (
    protocol.MessageStart,
    protocol.ContentBlockStart,
    protocol.ContentBlockDelta,
    protocol.ContentBlockStop,
    protocol.MessageDelta,
    protocol.MessageStop,
    protocol.MessageError,
)


def messages_endpoints(services: Services) -> list[Endpoint]:
    """The endpoints of /v1/messages."""
    return [
        Endpoint(
            "POST",
            "/v1/messages",
            Messages(services),
            tag="Generation",
            summary="Answer a conversation: the Anthropic Messages API.",
            request=MessagesRequest,
            example={"messages": _CONVERSATION, "max_tokens": 64},
            answer=Message,
            stream=ServerSentEvents(_EVENTS, ends_with_done=False),
            errors=(504,),
            error=protocol.MessageError,
        ),
        Endpoint(
            "POST",
            "/v1/messages/count_tokens",
            MessageTokenCount(services),
            tag="Generation",
            summary="Count the tokens of a message's prompt.",
            request=TokenCountRequest,
            example={"messages": _CONVERSATION},
            answer=TokenCount,
            error=protocol.MessageError,
        ),
    ]

"""The paths of the Responses API."""

from __future__ import annotations

from ..http.endpoint import NOT_SERVED, Endpoint, ServerSentEvents
from ..protocol import responses as protocol
from ..protocol.responses import InputTokens, Response, ResponsesRequest
from ..services import Services
from .responses import InputTokenCount, Responses, no_stored_response

_EXAMPLE = {"input": "What is the capital of France?", "max_output_tokens": 64}
_EVENTS = (
    protocol.ResponseCreated,
    protocol.ResponseInProgress,
    protocol.OutputItemAdded,
    protocol.ContentPartAdded,
    protocol.OutputTextDelta,
    protocol.OutputTextDone,
    protocol.ContentPartDone,
    protocol.FunctionCallArgumentsDelta,
    protocol.FunctionCallArgumentsDone,
    protocol.OutputItemDone,
    protocol.ResponseCompleted,
    protocol.ResponseIncomplete,
    protocol.ResponseFailed,
)


def responses_endpoints(services: Services) -> list[Endpoint]:
    """The endpoints of /v1/responses."""
    return [
        Endpoint(
            "POST",
            "/v1/responses",
            Responses(services),
            tag="Generation",
            summary="Answer a conversation: the Responses API, of which nothing is stored.",
            request=ResponsesRequest,
            example=_EXAMPLE,
            answer=Response,
            stream=ServerSentEvents(_EVENTS, ends_with_done=False),
            errors=(504,),
        ),
        Endpoint(
            "POST",
            "/v1/responses/input_tokens",
            InputTokenCount(services),
            tag="Generation",
            summary="Count the tokens of a response's input.",
            request=ResponsesRequest,
            example=_EXAMPLE,
            answer=InputTokens,
        ),
        *(
            Endpoint(
                method,
                path,
                no_stored_response,
                tag=NOT_SERVED,
                summary="Nothing is stored, so there is nothing to find here.",
                errors=(404,),
                refuses=True,
            )
            for method, path in (
                (("GET", "DELETE"), "/v1/responses/{response_id}"),
                ("GET", "/v1/responses/{response_id}/input_items"),
                ("POST", "/v1/responses/{response_id}/cancel"),
            )
        ),
    ]

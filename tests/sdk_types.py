"""Answers of the generation endpoints, read strictly by the OpenAI SDK's own types: every required field is there, each
value is of its type, and nothing stands beside the SDK's fields but what servers of this kind add: all of it is listed
here.

The SDK itself reads leniently: a wrong answer would pass it unseen.
"""

# Some fields are of another type here than in the SDK.
# pyright: reportIncompatibleVariableOverride=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeVar

import httpx
from openai.types import Completion, CompletionChoice, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion_choice import Logprobs
from openai.types.shared import ErrorObject
from pydantic import BaseModel

T = TypeVar("T", bound=BaseModel)

ADDED = {
    "CompletionAnswer": {"service_tier"},
    "CompletionAnswerChoice": {"stop_reason", "token_ids", "prompt_token_ids", "prompt_logprobs"},
    "CompletionEventChoice": {"stop_reason", "token_ids", "prompt_token_ids"},
    "ChatCompletion": {"prompt_logprobs", "prompt_token_ids", "prompt_text"},
    "ChatCompletionMessage": {"reasoning"},
    "Choice": {"stop_reason", "token_ids"},
    "Model": {"root", "parent", "max_model_len", "permission"},
}
"""Fields of vLLM's answers that OpenAI's have not, by the type that they stand in."""


class NullableLogprobs(Logprobs):
    """The first token of an echoed prompt has no logprob."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionAnswerChoice(CompletionChoice):
    """A whole answer."""

    logprobs: NullableLogprobs | None


class CompletionAnswer(Completion):
    """What is not streamed."""

    choices: list[CompletionAnswerChoice]


class CompletionEventChoice(CompletionChoice):
    """A piece of an answer: its end is not there yet."""

    finish_reason: Literal["stop", "length"] | None
    logprobs: NullableLogprobs | None


class CompletionEvent(Completion):
    """What is streamed."""

    choices: list[CompletionEventChoice]


class NumberedError(ErrorObject):
    """The code is the HTTP status, as a number."""

    code: int
    param: str | None


class ModelPage(BaseModel):
    """What `client.models.list()` reads."""

    object: Literal["list"]
    data: list[Model]


def read_completion(answer: dict[str, Any]) -> CompletionAnswer:
    """An answer of /v1/completions."""
    return _strictly(CompletionAnswer, answer)


def read_completion_event(event: dict[str, Any]) -> CompletionEvent:
    """An event of its stream."""
    return _strictly(CompletionEvent, event)


def read_chat_completion(answer: dict[str, Any]) -> ChatCompletion:
    """An answer of /v1/chat/completions."""
    return _strictly(ChatCompletion, answer)


def read_chat_event(event: dict[str, Any]) -> ChatCompletionChunk:
    """An event of its stream."""
    return _strictly(ChatCompletionChunk, event)


def read_model(card: dict[str, Any]) -> Model:
    """A card of /v1/models/{id}."""
    return _strictly(Model, card)


def read_models(answer: dict[str, Any]) -> list[Model]:
    """The cards of /v1/models."""
    return _strictly(ModelPage, answer).data


def read_error(response: httpx.Response) -> NumberedError:
    """The error object of an answer, which is nothing else."""
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    error = _strictly(NumberedError, response.json()["error"])
    assert error.model_fields_set == {"message", "type", "param", "code"}
    assert error.code == response.status_code
    return error


def _strictly(kind: type[T], data: dict[str, Any]) -> T:
    value = kind.model_validate(data, strict=True)
    for part in _models(value):
        added = set(part.model_extra or ()) - ADDED.get(type(part).__name__, set())
        assert not added, f"{type(part).__name__} has {added}"
    return value


def _models(value: Any) -> Iterator[BaseModel]:
    """The model and all that it holds."""
    if isinstance(value, BaseModel):
        yield value
        for name in type(value).model_fields:
            yield from _models(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            yield from _models(item)

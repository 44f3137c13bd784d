"""Requests of every kind, and what a client has of them in the end: to compare a disturbed run to a calm one.

`requests(n)` makes n of them, `run` asks a server for all at once. Each `Outcome` holds texts, token ids and logprobs,
and when each event came. A test that acts amid a run counts tokens: a late reader gets many in one event.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

LIST_OF_WORDS = {
    "type": "object",
    "properties": {
        "names": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 30, "maxItems": 30},
        "kind": {"enum": ["towns", "rivers"]},
    },
    "required": ["names", "kind"],
}

KINDS: tuple[dict[str, Any], ...] = (
    {"temperature": 0},
    {"temperature": 0.9, "seed": 7},
    {"temperature": 1.0, "seed": 3, "n": 2, "top_p": 0.9},
    {"temperature": 0.7, "seed": 5, "logprobs": 2, "top_k": 40},
    {"temperature": 1.1, "seed": 8, "stop": ["zzqx", "\n\n\n\n"], "include_stop_str_in_output": True},
    {"temperature": 0, "repetition_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.4},
    {"temperature": 0.8, "seed": 11, "ignore_eos": False, "min_tokens": 150},
    {"temperature": 0.9, "seed": 12, "guided_regex": "([a-z]{2,9} ){60}", "ignore_eos": False},
    {"temperature": 0.9, "seed": 13, "guided_json": LIST_OF_WORDS, "ignore_eos": False, "max_tokens": 900},
    {"temperature": 1.0, "seed": 14, "n": 1, "best_of": 3, "stream": False},
    {"temperature": 0.6, "seed": 15, "stream": False, "logprobs": 1, "echo": True},
    {
        "temperature": 0.5,
        "seed": 16,
        "bad_words": ["the"],
        "logit_bias": {"20": 2.0},
        "prompt_logprobs": 1,
        "stream": False,
    },
)


@dataclass
class Answer:
    """One choice."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: Any = None


@dataclass
class Outcome:
    """What a client has of one request."""

    status: int = 0
    error: Any = None
    answers: dict[int, Answer] = field(default_factory=dict)
    prompt_logprobs: Any = None
    is_done: bool = False
    times: list[float] = field(default_factory=list)
    """When its events came, `time.monotonic()`."""

    @property
    def result(self) -> tuple[Any, ...]:
        """All that must be equal in another run."""
        return (self.status, self.error, self.answers, self.prompt_logprobs, self.is_done)

    @property
    def longest_pause(self) -> float:
        return max((after - before for before, after in zip(self.times, self.times[1:], strict=False)), default=0.0)


def requests(number: int, *, max_tokens: int = 250) -> list[dict[str, Any]]:
    """The bodies of `number` requests of POST /v1/completions, kind by kind."""
    common = {"max_tokens": max_tokens, "ignore_eos": True, "stream": True, "return_token_ids": True}
    return [
        {**common, "prompt": f"Question {i}: what is the capital of France? ", **KINDS[i % len(KINDS)]}
        for i in range(number)
    ]


async def run(
    url: str,
    headers: dict[str, str],
    bodies: Sequence[dict[str, Any]],
    on_tokens: Callable[[int], None] = lambda num_tokens: None,
) -> list[Outcome]:
    """Ask for all at once; what came of each. on_tokens: told how many tokens each event of a stream brings."""
    outcomes = [Outcome() for _ in bodies]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=300, limits=limits) as client:
        await asyncio.gather(
            *(_ask(client, body, outcome, on_tokens) for body, outcome in zip(bodies, outcomes, strict=True))
        )
    return outcomes


async def _ask(
    client: httpx.AsyncClient, body: dict[str, Any], outcome: Outcome, on_tokens: Callable[[int], None]
) -> None:
    if not body["stream"]:
        response = await client.post("/v1/completions", json=body)
        outcome.status = response.status_code
        _add(outcome, response.json(), is_event=False)
        outcome.is_done = True
        return
    async with client.stream("POST", "/v1/completions", json=body) as response:
        outcome.status = response.status_code
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            outcome.times.append(time.monotonic())
            if line == "data: [DONE]":
                outcome.is_done = True
            else:
                event = json.loads(line.removeprefix("data: "))
                _add(outcome, event, is_event=True)
                on_tokens(sum(len(choice.get("token_ids") or []) for choice in event.get("choices", ())))


def _add(outcome: Outcome, answer: dict[str, Any], *, is_event: bool) -> None:
    outcome.error = outcome.error or answer.get("error")
    for choice in answer.get("choices", ()):
        known = outcome.answers.setdefault(choice["index"], Answer())
        known.text += choice["text"]
        known.token_ids += choice.get("token_ids") or []
        known.finish_reason = choice["finish_reason"]
        known.stop_reason = choice["stop_reason"]
        if choice["logprobs"]:
            known.logprobs.append(choice["logprobs"]) if not is_event else known.logprobs.extend(
                zip(choice["logprobs"]["tokens"], choice["logprobs"]["token_logprobs"], strict=True)
            )
        outcome.prompt_logprobs = choice.get("prompt_logprobs") or outcome.prompt_logprobs

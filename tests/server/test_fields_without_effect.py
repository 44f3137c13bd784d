"""Fields that OpenAI-compatible servers pass over are taken, and parts for which no model is served are refused."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.running_server import RunningServer

PASSED_OVER: dict[str, Any] = {
    "kv_transfer_params": {"a": 1},
    "media_io_kwargs": {"video": {"num_frames": 4}},
    "mm_processor_kwargs": {"num_crops": 4},
    "modalities": ["text"],
    "prediction": {"type": "content", "content": "Paris"},
    "repetition_detection": {"a": 1},
    "thinking_token_budget": 16,
    "include_reasoning": True,
    "reasoning_effort": "low",
    "vllm_xargs": {"a": "b"},
}
MEDIA = ["image_url", "input_audio", "audio_url", "video_url", "image_embeds", "audio_embeds"]


@pytest.mark.parametrize("field", PASSED_OVER)
def test_a_field_that_is_passed_over_changes_nothing(field: str, server: RunningServer) -> None:
    answers = [
        server.openai().chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            temperature=0,
            extra_body=extra,
        )
        for extra in ({}, {field: PASSED_OVER[field]})
    ]
    assert [answer.choices[0].message.content for answer in answers] == ["The capital of France is Paris."] * 2
    assert answers[1].system_fingerprint is None


@pytest.mark.parametrize("kind", MEDIA)
def test_a_part_that_is_no_text_is_refused_by_its_place(kind: str, server: RunningServer) -> None:
    messages: Any = [{"role": "user", "content": [{"type": kind, kind: {"url": "http://127.0.0.1/x", "data": "AA=="}}]}]
    with pytest.raises(openai.BadRequestError) as refused:
        server.openai().chat.completions.create(model="demo", messages=messages)
    assert refused.value.param == "messages[0].content[0]"
    assert kind in refused.value.message

"""Fields that OpenAI-compatible servers pass over are taken and change nothing; parts for which no model is served are
refused.
"""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.running_server import RunningServer

OF_BOTH: dict[str, Any] = {
    "ec_transfer_params": {"a": 1},
    "kv_transfer_params": {"a": 1},
    "mm_processor_kwargs": {"num_crops": 4},
    "priority": 3,
    "repetition_detection": {"a": 1},
    "session_id": "of today",
    "thinking_token_budget": 16,
    "user": "somebody",
    "vllm_xargs": {"a": "b"},
    "watermarking": {"key": 1},
}
OF_CHAT: dict[str, Any] = {
    "include_reasoning": True,
    "media_io_kwargs": {"video": {"num_frames": 4}},
    "metadata": {"a": "b"},
    "modalities": ["text"],
    "prediction": {"type": "content", "content": "Paris"},
    "reasoning_effort": "low",
    "service_tier": "default",
    "store": True,
}
MEDIA = ["image_url", "input_audio", "audio_url", "video_url", "image_embeds", "audio_embeds", "prompt_embeds"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("field", OF_BOTH)
def test_a_field_that_is_passed_over_changes_no_completion(field: str, stream: bool, server: RunningServer) -> None:
    answer: Any = server.openai().completions.create(
        model="demo",
        prompt="The capital of France is",
        temperature=0,
        stream=stream,
        extra_body={field: OF_BOTH[field]},
    )
    pieces = [event.choices[0].text for event in answer] if stream else [answer.choices[0].text]
    assert "".join(pieces) == " Paris."


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("field", [*OF_BOTH, *OF_CHAT])
def test_a_field_that_is_passed_over_changes_no_chat(field: str, stream: bool, server: RunningServer) -> None:
    answer: Any = server.openai().chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        stream=stream,
        extra_body={field: (OF_BOTH | OF_CHAT)[field]},
    )
    if stream:
        pieces = [event.choices[0].delta.content or "" for event in answer]
    else:
        pieces = [answer.choices[0].message.content]
        assert (answer.system_fingerprint, answer.service_tier) == (None, None)
    assert "".join(pieces) == "The capital of France is Paris."


@pytest.mark.parametrize("kind", MEDIA)
def test_a_part_that_is_no_text_is_refused_by_its_place(kind: str, server: RunningServer) -> None:
    messages: Any = [{"role": "user", "content": [{"type": kind, kind: {"url": "http://127.0.0.1/x", "data": "AA=="}}]}]
    with pytest.raises(openai.BadRequestError) as refused:
        server.openai().chat.completions.create(model="demo", messages=messages)
    assert (refused.value.type, refused.value.param) == ("BadRequestError", "messages[0].content[0]")
    assert f"{kind!r}, but this is not a multimodal model" in refused.value.message

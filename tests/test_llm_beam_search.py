"""`LLM.beam_search` and beam searches by `LLM.generate`, on the demo model."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.running_server import DEMO_MODEL
from zqserve import LLM, BeamSearchParams, GuidedDecodingParams, SamplingParams
from zqserve.engine_core.errors import InvalidRequestError, RequestFailedError

PROMPTS = ["The capital of France is", "Once upon a time", "Question: What is bread made of?\nAnswer:"]


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(str(DEMO_MODEL), max_num_seqs=16, num_gpu_blocks_override=256)


def test_the_answers_are_those_of_transformers_in_their_order() -> None:
    # In bfloat16 two beams may be so close that rounding decides.
    llm = LLM(str(DEMO_MODEL), dtype="float32", num_gpu_blocks_override=256)
    model: Any = AutoModelForCausalLM.from_pretrained(DEMO_MODEL, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    outputs = llm.beam_search(PROMPTS, BeamSearchParams(beam_width=4, max_tokens=24))
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        with torch.no_grad():
            found = model.generate(
                torch.tensor([llm.get_tokenizer().encode(prompt)]),
                num_beams=4,
                num_return_sequences=4,
                do_sample=False,
                max_new_tokens=24,
            )
        expected = tokenizer.batch_decode(found, skip_special_tokens=True)
        assert [sequence.text for sequence in output.sequences] == expected
        for sequence in output.sequences:
            assert sequence.text.startswith(prompt)
            assert sequence.finish_reason in ("stop", "length")


def test_a_sequence_has_tokens_logprobs_and_their_sum(llm: LLM) -> None:
    prompt = llm.get_tokenizer().encode(PROMPTS[0])
    (output,) = llm.beam_search({"prompt_token_ids": prompt}, BeamSearchParams(beam_width=3, max_tokens=6))
    assert len(output.sequences) == 3
    for sequence in output.sequences:
        assert sequence.tokens[: len(prompt)] == prompt
        assert sequence.text.startswith(PROMPTS[0])
        generated = sequence.tokens[len(prompt) :]
        chosen = [next(iter(position)) for position in sequence.logprobs]
        # The token that ended it has a logprob, but does not stand among the tokens.
        assert chosen[: len(generated)] == generated
        assert len(chosen) == len(generated) + (sequence.finish_reason == "stop")
        assert all(len(position) in (6, 7) for position in sequence.logprobs)
        total = sum(position[token].logprob for token, position in zip(chosen, sequence.logprobs, strict=True))
        assert sequence.cum_logprob == pytest.approx(total)


def test_what_ended_an_answer_is_shown_on_demand(llm: LLM) -> None:
    for shown in (False, True):
        params = BeamSearchParams(beam_width=2, max_tokens=8, include_stop_str_in_output=shown)
        (output,) = llm.beam_search(PROMPTS[0], params)
        first = output.sequences[0]
        assert first.finish_reason == "stop"
        last = llm.get_tokenizer().convert_ids_to_tokens(first.tokens[-1:])[0]
        assert (last in ("<|endoftext|>", "<|im_end|>")) == shown


def test_ignoring_eos_every_answer_has_the_full_length(llm: LLM) -> None:
    (output,) = llm.beam_search(PROMPTS[0], BeamSearchParams(beam_width=4, max_tokens=9, ignore_eos=True))
    num_prompt_tokens = len(llm.get_tokenizer().encode(PROMPTS[0]))
    assert [len(sequence.tokens) - num_prompt_tokens for sequence in output.sequences] == [9] * 4


def test_a_length_penalty_below_zero_brings_short_answers_first(llm: LLM) -> None:
    def first_length(length_penalty: float) -> int:
        params = BeamSearchParams(beam_width=4, max_tokens=24, length_penalty=length_penalty)
        return len(llm.beam_search(PROMPTS[0], params)[0].sequences[0].tokens)

    assert first_length(-1.0) < first_length(8.0)


def test_every_beam_matches_what_guides_it(llm: LLM) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 8}, "old": {"type": "boolean"}},
        "required": ["city", "old"],
        "additionalProperties": False,
    }
    (output,) = llm.beam_search(
        PROMPTS[0], BeamSearchParams(beam_width=4, max_tokens=60, guided_decoding=GuidedDecodingParams(json=schema))
    )
    assert len(output.sequences) == 4
    for sequence in output.sequences:
        assert sequence.finish_reason == "stop"
        jsonschema.validate(json.loads(sequence.text.removeprefix(PROMPTS[0])), schema)

    pattern = r"[A-Z][a-z]{2,5}( [a-z]{1,4}){2}\."
    params = BeamSearchParams(beam_width=5, max_tokens=30, guided_decoding=GuidedDecodingParams(regex=pattern))
    for sequence in llm.beam_search(PROMPTS[1], params)[0].sequences:
        assert re.fullmatch(pattern, sequence.text.removeprefix(PROMPTS[1]))


def test_a_guided_search_finds_the_likeliest_choice(llm: LLM) -> None:
    choices = ["London", "Paris", "Rome in Italy"]
    params = BeamSearchParams(beam_width=6, max_tokens=12, guided_decoding=GuidedDecodingParams(choice=choices))
    texts = [sequence.text.removeprefix(PROMPTS[0]) for sequence in llm.beam_search(PROMPTS[0], params)[0].sequences]
    assert texts[0] == "Paris"
    assert set(texts) <= set(choices)


def test_a_stop_string_ends_a_beam_and_is_cut_off(llm: LLM) -> None:
    params = BeamSearchParams(beam_width=4, max_tokens=30, stop=["who lived", "."])
    (output,) = llm.beam_search(PROMPTS[1], params)
    stopped = [sequence for sequence in output.sequences if sequence.stop_reason in ("who lived", ".")]
    assert stopped
    for sequence in output.sequences:
        assert "who lived" not in sequence.text
        assert "." not in sequence.text


def test_generate_takes_the_parameters_of_the_oldest_releases(llm: LLM) -> None:
    params = SamplingParams(use_beam_search=True, best_of=4, n=2, temperature=0, max_tokens=8)
    (output,) = llm.generate(PROMPTS[0], params, use_tqdm=False)
    best = llm.beam_search(PROMPTS[0], BeamSearchParams(beam_width=4, max_tokens=8))[0].sequences
    assert [answer.index for answer in output.outputs] == [0, 1]
    assert [PROMPTS[0] + answer.text for answer in output.outputs] == [sequence.text for sequence in best[:2]]
    assert all(answer.logprobs is None for answer in output.outputs)
    assert [answer.cumulative_logprob for answer in output.outputs] == [sequence.cum_logprob for sequence in best[:2]]


def test_searches_and_drawn_answers_run_in_one_batch(llm: LLM) -> None:
    search = SamplingParams(use_beam_search=True, n=3, temperature=0, max_tokens=12)
    drawn = SamplingParams(temperature=0.9, seed=3, max_tokens=12)
    alone = [llm.generate(PROMPTS[i % 3], (search, drawn)[i % 2], use_tqdm=False)[0] for i in range(8)]
    together = llm.generate(
        [PROMPTS[i % 3] for i in range(8)], [(search, drawn)[i % 2] for i in range(8)], use_tqdm=False
    )
    assert [output.outputs for output in together] == [output.outputs for output in alone]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"beam_width": 0}, "n must be between 1 and 16384"),
        ({"beam_width": 17}, "at most 16 beams"),
        ({"beam_width": 16, "max_tokens": 400}, "KV cache, which has 4096"),
        ({"temperature": 0.7}, "temperature must be 0 or 1"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"length_penalty": 11.0}, "length_penalty must be between"),
        ({"early_stopping": "now"}, "early_stopping must be"),
    ],
)
def test_what_makes_no_sense_is_refused(llm: LLM, params: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        llm.beam_search(PROMPTS[0], BeamSearchParams(**{"beam_width": 2, "max_tokens": 4, **params}))  # pyright: ignore


def test_a_beam_without_a_token_left_ends_and_the_others_go_on(llm: LLM) -> None:
    tokenizer = llm.get_tokenizer()
    letters = [tokenizer.encode(letter)[0] for letter in "QXZ"]
    dead_end = letters[0]
    words = ["QQ", "QX", "QZ"]  # nothing may follow Q
    assert all(len(tokenizer.encode(word)) == 2 for word in words)
    params = SamplingParams(
        use_beam_search=True, n=2, temperature=0, max_tokens=3, allowed_token_ids=letters, bad_words=words
    )
    (output,) = llm.generate("x", params, use_tqdm=False)
    assert len(output.outputs) == 2
    assert all(dead_end not in answer.token_ids[:-1] for answer in output.outputs)
    with pytest.raises(RequestFailedError, match="No token is left"):
        llm.generate("x", params.clone(allowed_token_ids=[dead_end], bad_words=["QQ"]), use_tqdm=False)

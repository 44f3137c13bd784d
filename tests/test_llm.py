"""The offline API: vLLM's quickstart, with the answers of transformers, in the order of the prompts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm
from transformers import AutoModelForCausalLM, LlamaConfig

from tests.server import tiny_tokenizers
from zqserve import (
    LLM,
    CompletionOutput,
    GuidedDecodingParams,
    RequestOutput,
    SamplingParams,
    StructuredOutputsParams,
)
from zqserve.engine_core.errors import InvalidRequestError

PROMPTS = ["Hello, my name is", "The president of", "The capital of France is", "The"]
GREEDY = SamplingParams(temperature=0, max_tokens=12)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights, with a tokenizer and a chat template."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = tiny_tokenizers.byte_level(folder)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "max_new_tokens": 7}))
    return folder


@pytest.fixture(scope="module")
def make_llm(model_dir: Path) -> Callable[..., LLM]:
    def make(**options: Any) -> LLM:
        return LLM(str(model_dir), max_num_seqs=8, num_gpu_blocks_override=64, **options)

    return make


@pytest.fixture(scope="module")
def llm(make_llm: Callable[..., LLM]) -> LLM:
    return make_llm()


def first_texts(outputs: list[RequestOutput]) -> list[str]:
    return [output.outputs[0].text for output in outputs]


def test_the_quickstart_prints_each_prompt_with_its_answer(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = llm.generate(PROMPTS, SamplingParams(temperature=0.8, top_p=0.95))
    assert [output.prompt for output in outputs] == PROMPTS
    assert "Processed prompts" in capsys.readouterr().err
    for output in outputs:
        (answer,) = output.outputs
        assert output.finished
        assert answer.finished()
        assert len(answer.token_ids) <= 16
        assert output.prompt_token_ids == llm.get_tokenizer().encode(output.prompt or "")
        print(f"Prompt: {output.prompt!r}, Generated text: {answer.text!r}")
    assert capsys.readouterr().err == ""


def test_greedy_answers_are_those_of_transformers(llm: LLM, model_dir: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    for output in llm.generate(PROMPTS, GREEDY, use_tqdm=False):
        prompt = torch.tensor([output.prompt_token_ids])
        theirs = model.generate(prompt, do_sample=False, max_new_tokens=12, eos_token_id=2, pad_token_id=0)
        expected = theirs[0, prompt.shape[1] :].tolist()
        assert output.outputs[0].token_ids == expected
        assert output.outputs[0].text == llm.get_tokenizer().decode(expected, skip_special_tokens=True)


def test_all_forms_of_a_prompt_are_answered_alike(llm: LLM) -> None:
    text = PROMPTS[2]
    token_ids = llm.get_tokenizer().encode(text)
    (expected,) = first_texts(llm.generate([text], GREEDY))
    forms: list[Any] = [
        text,
        token_ids,
        [token_ids],
        {"prompt": text},
        {"prompt_token_ids": token_ids},
        [{"prompt": text}],
    ]
    for form in forms:
        assert first_texts(llm.generate(form, GREEDY, use_tqdm=False)) == [expected]
    assert llm.generate([], GREEDY) == []


def test_each_prompt_may_have_parameters_of_its_own(llm: LLM) -> None:
    params = [SamplingParams(max_tokens=n, ignore_eos=True) for n in (3, 1, 2)]
    outputs = llm.generate(PROMPTS[:3], params, use_tqdm=False)
    assert [len(output.outputs[0].token_ids) for output in outputs] == [3, 1, 2]
    with pytest.raises(InvalidRequestError, match="3 prompts, but 2"):
        llm.generate(PROMPTS[:3], params[:2])


def test_defaults_come_from_the_models_generation_config(llm: LLM, make_llm: Callable[..., LLM]) -> None:
    assert llm.get_default_sampling_params() == SamplingParams(temperature=0.6, max_tokens=7)
    assert len(llm.generate("The", use_tqdm=False)[0].outputs[0].token_ids) <= 7
    assert make_llm(generation_config="vllm").get_default_sampling_params() == SamplingParams()


def test_seeded_answers_do_not_depend_on_their_company(llm: LLM) -> None:
    params = SamplingParams(n=2, seed=11, max_tokens=10, ignore_eos=True)
    (alone,) = llm.generate(PROMPTS[0], params, use_tqdm=False)
    among = llm.generate([*PROMPTS, *PROMPTS], params, use_tqdm=False)[0]
    assert [answer.token_ids for answer in among.outputs] == [answer.token_ids for answer in alone.outputs]
    assert alone.outputs[0].token_ids != alone.outputs[1].token_ids


def test_a_script_without_seeds_brings_the_same_each_time(make_llm: Callable[..., LLM]) -> None:
    params = SamplingParams(temperature=1.5, max_tokens=10)
    texts = [first_texts(make_llm(seed=seed).generate(PROMPTS, params, use_tqdm=False)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_logprobs_hold_the_chosen_and_the_most_likely_tokens(llm: LLM) -> None:
    params = SamplingParams(max_tokens=5, logprobs=2, prompt_logprobs=1, seed=1, ignore_eos=True)
    (output,) = llm.generate(PROMPTS[0], params, use_tqdm=False)
    (answer,) = output.outputs
    assert answer.logprobs is not None
    assert answer.cumulative_logprob == pytest.approx(
        sum(entries[token_id].logprob for token_id, entries in zip(answer.token_ids, answer.logprobs, strict=True))
    )
    for token_id, entries in zip(answer.token_ids, answer.logprobs, strict=True):
        assert 2 <= len(entries) <= 3
        assert sorted(entry.rank or 0 for entry in entries.values())[:2] == [1, 2]
        assert entries[token_id].decoded_token == llm.get_tokenizer().decode(token_id)
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    assert len(output.prompt_logprobs) == len(output.prompt_token_ids)
    for token_id, entries in zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True):
        assert entries is not None
        assert token_id in entries


def test_best_of_returns_the_most_likely_of_its_candidates(llm: LLM) -> None:
    everyone = SamplingParams(n=4, seed=3, max_tokens=4, logprobs=0, ignore_eos=True)
    (output,) = llm.generate(PROMPTS[1], everyone, use_tqdm=False)
    ranked = sorted(output.outputs, key=lambda answer: -(answer.cumulative_logprob or 0))
    (best,) = llm.generate(PROMPTS[1], everyone.clone(n=2, best_of=4, logprobs=None), use_tqdm=False)
    assert [answer.token_ids for answer in best.outputs] == [answer.token_ids for answer in ranked[:2]]
    assert [answer.index for answer in best.outputs] == [0, 1]
    assert all(isinstance(answer, CompletionOutput) and answer.logprobs is None for answer in best.outputs)


def test_a_stop_string_ends_an_answer(llm: LLM) -> None:
    (output,) = llm.generate(PROMPTS[0], GREEDY.clone(ignore_eos=True), use_tqdm=False)
    text = output.outputs[0].text
    stop = text[3:5]
    (stopped,) = llm.generate(PROMPTS[0], GREEDY.clone(ignore_eos=True, stop=stop), use_tqdm=False)
    assert stopped.outputs[0].text == text[: text.index(stop)]
    assert (stopped.outputs[0].finish_reason, stopped.outputs[0].stop_reason) == ("stop", stop)
    # The engine has forgotten it: the next one is not disturbed.
    assert first_texts(llm.generate(PROMPTS[0], GREEDY.clone(ignore_eos=True), use_tqdm=False)) == [text]


def test_chat_renders_the_models_template(llm: LLM) -> None:
    chat = [{"role": "user", "content": "Hi"}]
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    (answer,) = llm.chat(chat, GREEDY, use_tqdm=False)
    assert answer.prompt == prompt
    assert first_texts([answer]) == first_texts(llm.generate(prompt, GREEDY, use_tqdm=False))
    several = llm.chat([chat, chat], GREEDY, use_tqdm=False)
    assert first_texts(several) == first_texts([answer, answer])
    (continued,) = llm.chat(chat, GREEDY, False, add_generation_prompt=False, continue_final_message=True)
    assert continued.prompt == "<|im_start|>user\nHi"


def test_the_prefix_cache_is_told(llm: LLM) -> None:
    prompt = {"prompt_token_ids": list(range(50, 100))}
    llm.generate(prompt, GREEDY, use_tqdm=False)
    (output,) = llm.generate(prompt, GREEDY, use_tqdm=False)
    assert output.num_cached_tokens == 48
    assert output.metrics is not None
    assert output.metrics.finished_time is not None


def test_mistakes_are_refused_before_anything_is_generated(llm: LLM) -> None:
    bad: list[tuple[Any, SamplingParams]] = [
        ("", GREEDY),
        ({"text": "x"}, GREEDY),
        ({"prompt": "x", "multi_modal_data": {}}, GREEDY),
        ([5.0], GREEDY),
        ([[1, 10_000]], GREEDY),
        (["fine", [1] * 300], GREEDY),
        ("x", SamplingParams(logprobs=21)),
    ]
    for prompts, params in bad:
        with pytest.raises(InvalidRequestError):
            llm.generate(prompts, params, use_tqdm=False)
    with pytest.raises(InvalidRequestError, match=r"tools\[0\].function must be an object"):
        llm.chat([{"role": "user", "content": "x"}], tools=[{}])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"trust_remote_code": True}, ValueError),
        ({"tensor_parallel_size": 2}, ValueError),
        ({"max_model_len": 257}, ValueError),
        ({"block_size": 24}, ValueError),
        ({"no_such_argument": 1}, TypeError),
    ],
)
def test_what_is_not_supported_is_refused_at_the_start(
    options: dict[str, Any], error: type[Exception], make_llm: Callable[..., LLM]
) -> None:
    with pytest.raises(error):
        make_llm(**options)


def test_an_interrupt_leaves_nothing_behind(llm: LLM) -> None:
    class Interrupting(tqdm):  # type: ignore[type-arg]
        def update(self, n: float | None = 1) -> bool | None:
            raise KeyboardInterrupt

    expected = first_texts(llm.generate(PROMPTS, GREEDY, use_tqdm=False))
    with pytest.raises(KeyboardInterrupt):
        llm.generate(PROMPTS * 5, GREEDY, use_tqdm=Interrupting)
    assert first_texts(llm.generate(PROMPTS, GREEDY, use_tqdm=False)) == expected


class Pet(BaseModel):
    """For `guided_json`."""

    model_config = ConfigDict(extra="forbid")
    kind: Literal["cat", "dog"]
    age: int = Field(ge=0, le=20)


def matches(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern).fullmatch


def is_pet(text: str) -> bool:
    return Pet.model_validate_json(text).age >= 0


GUIDED: list[tuple[dict[str, Any], Callable[[str], object]]] = [
    ({"choice": ["Paris", "London"]}, matches("Paris|London")),
    ({"regex": r"\d{3}-\d{4}"}, matches(r"\d{3}-\d{4}")),
    ({"grammar": 'root ::= "a" root | "b"'}, matches("a*b")),
    ({"json": {"enum": [1, 22, 333]}}, lambda text: json.loads(text) in (1, 22, 333)),
    ({"json": '{"type": "boolean"}', "whitespace_pattern": ""}, matches("true|false")),
    ({"json": Pet}, is_pet),
    ({"json": Pet, "disable_any_whitespace": True}, lambda text: is_pet(text) and not re.search(r"\s", text)),
]


@pytest.mark.parametrize(("given", "check"), GUIDED, ids=[next(iter(given)) for given, _ in GUIDED])
@pytest.mark.parametrize("newer", [False, True])
def test_a_constrained_answer_matches(
    llm: LLM, given: dict[str, Any], check: Callable[[str], object], newer: bool
) -> None:
    constraint: dict[str, Any] = (
        {"structured_outputs": StructuredOutputsParams(**given)}
        if newer
        else {"guided_decoding": GuidedDecodingParams(backend="outlines", **given)}
    )
    params = SamplingParams(max_tokens=100, seed=1, n=2, **constraint)
    free = SamplingParams(max_tokens=4, ignore_eos=True)
    *guided, other = llm.generate([*PROMPTS[:2], PROMPTS[2]], [params, params, free], use_tqdm=False)
    for output in guided:
        for answer in output.outputs:
            assert check(answer.text)
            assert answer.finish_reason == "stop"
    assert len(other.outputs[0].token_ids) == 4


def test_what_constrains_wrongly_is_refused_by_its_name(llm: LLM) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "none of json"),
        ({"regex": "a", "choice": ["b"]}, "guided_decoding.regex and guided_decoding.choice"),
        ({"regex": "("}, "guided_decoding.regex"),
        ({"json": 5}, "pydantic"),
        ({"choice": []}, "at least one"),
        ({"choice": ["a"], "backend": "nobody"}, "outlines"),
        ({"choice": ["a"], "whitespace_pattern": " "}, "JSON"),
    ]
    for given, said in wrong:
        with pytest.raises(InvalidRequestError, match=said):
            llm.generate("a", SamplingParams(guided_decoding=GuidedDecodingParams(**given)), use_tqdm=False)
    with pytest.raises(InvalidRequestError, match="only one"):
        SamplingParams(guided_decoding=GuidedDecodingParams(), structured_outputs=StructuredOutputsParams())


def test_a_backend_of_the_model_brings_its_options(make_llm: Callable[..., LLM]) -> None:
    llm = make_llm(guided_decoding_backend="xgrammar:disable-any-whitespace")
    params = SamplingParams(guided_decoding=GuidedDecodingParams(json=Pet), max_tokens=100, seed=2)
    (output,) = llm.generate("a", params, use_tqdm=False)
    assert is_pet(output.outputs[0].text)
    assert not re.search(r"\s", output.outputs[0].text)
    with pytest.raises(InvalidRequestError, match="outlines"):
        make_llm(guided_decoding_backend="nobody")


def test_jump_ahead_changes_the_work_and_not_the_text(make_llm: Callable[..., LLM], llm: LLM) -> None:
    params = SamplingParams(guided_decoding=GuidedDecodingParams(choice=["The end of the line."]), max_tokens=50)
    texts = [
        model.generate("a", params, use_tqdm=False)[0].outputs[0].text for model in (llm, make_llm(jump_ahead=False))
    ]
    assert texts == ["The end of the line."] * 2

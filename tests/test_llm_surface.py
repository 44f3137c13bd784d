"""The offline API as users of vLLM know it: its documentation's samples, arguments, parameters, outputs."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

import zqserve.sampling_params
from tests.running_server import DEMO_MODEL
from zqserve import LLM, RequestOutput, SamplingParams
from zqserve.engine_core.errors import InvalidRequestError
from zqserve.entrypoints.chat_utils import load_chat_template
from zqserve.sampling_params import GuidedDecodingParams, RequestOutputKind

CONVERSATION = [
    {"role": "system", "content": "You are a helpful assistant"},
    {"role": "user", "content": "What is the capital of France?"},
]


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(model=str(DEMO_MODEL), max_num_seqs=8, num_gpu_blocks_override=64, enforce_eager=True)


def run_sample(code: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run a sample of vLLM's page on generative models with the import and the model changed; what it prints."""
    code = code.replace("from vllm", "from zqserve")
    for model in ("facebook/opt-125m", "meta-llama/Meta-Llama-3-8B-Instruct"):
        code = code.replace(model, str(DEMO_MODEL))
    exec(code, {})
    return capsys.readouterr().out.splitlines()


def test_sample_of_generate(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = run_sample(
        """
from vllm import LLM

llm = LLM(model="facebook/opt-125m")
outputs = llm.generate("Hello, my name is")

for output in outputs:
    prompt = output.prompt
    generated_text = output.outputs[0].text
    print(f"Prompt: {prompt!r}, Generated text: {generated_text!r}")
""",
        capsys,
    )
    assert line.startswith("Prompt: 'Hello, my name is', Generated text: ' ")


def test_sample_of_sampling_params(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = run_sample(
        """
from vllm import LLM, SamplingParams

llm = LLM(model="facebook/opt-125m")
params = SamplingParams(temperature=0)
outputs = llm.generate("The capital of France is", params)

for output in outputs:
    prompt = output.prompt
    generated_text = output.outputs[0].text
    print(f"Prompt: {prompt!r}, Generated text: {generated_text!r}")
""",
        capsys,
    )
    assert line.startswith("Prompt: 'The capital of France is', Generated text: ' Paris")


def test_sample_of_beam_search(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = run_sample(
        """
from vllm import LLM
from vllm.sampling_params import BeamSearchParams

llm = LLM(model="facebook/opt-125m")
params = BeamSearchParams(beam_width=5, max_tokens=20)
outputs = llm.beam_search([{"prompt": "Hello, my name is "}], params)

for output in outputs:
    generated_text = output.sequences[0].text
    print(f"Generated text: {generated_text!r}")
""",
        capsys,
    )
    assert line.startswith("Generated text: 'Hello, my name is ")


def test_older_sample_of_beam_search(capsys: pytest.CaptureFixture[str]) -> None:
    """The page of the time of `guided_choice` hands the parameters to `generate`."""
    (line,) = run_sample(
        """
from vllm import LLM
from vllm.sampling_params import BeamSearchParams

llm = LLM(model="facebook/opt-125m")
params = BeamSearchParams(beam_width=5, max_tokens=50)
outputs = llm.generate("Hello, my name is", params)

for output in outputs:
    print(output.prompt, [answer.text for answer in output.outputs])

search = llm.beam_search("Hello, my name is", params)[0].sequences
assert [output.prompt + answer.text for answer in output.outputs] == [sequence.text for sequence in search]
assert all(answer.logprobs is None for answer in output.outputs)
""",
        capsys,
    )
    assert line.startswith("Hello, my name is [")
    assert line.count("', '") == 4


CHAT_SAMPLE = """
from vllm import LLM

llm = LLM(model="meta-llama/Meta-Llama-3-8B-Instruct")
conversation = [
    {
        "role": "system",
        "content": "You are a helpful assistant"
    },
    {
        "role": "user",
        "content": "Hello"
    },
    {
        "role": "assistant",
        "content": "Hello! How can I assist you today?"
    },
    {
        "role": "user",
        "content": "What is the capital of France?",
    },
]
outputs = llm.chat(conversation)

for output in outputs:
    prompt = output.prompt
    generated_text = output.outputs[0].text
    print(f"Prompt: {prompt!r}, Generated text: {generated_text!r}")
"""


def test_sample_of_chat(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = run_sample(CHAT_SAMPLE, capsys)
    assert "Hello! How can I assist you today?" in line
    assert "Generated text: '" in line


def test_sample_of_chat_with_a_template(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "template.jinja"
    path.write_text("{% for message in messages %}[{{ message.role }}] {{ message.content }} {% endfor %}")
    lines = run_sample(
        CHAT_SAMPLE.split("outputs =")[0]
        + f"""
from vllm.entrypoints.chat_utils import load_chat_template

custom_template = load_chat_template(chat_template="{path}")
print("Loaded chat template:", custom_template)

outputs = llm.chat(conversation, chat_template=custom_template)
print(outputs[0].prompt)
""",
        capsys,
    )
    assert lines[0] == f"Loaded chat template: {path.read_text()}"
    assert lines[1].startswith("[system] You are a helpful assistant [user] Hello [assistant] Hello!")


def test_outputs_are_printed_as_users_know_them(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=1, prompt_logprobs=0)
    (output,) = llm.generate("The capital of France is", params, use_tqdm=False)
    answer = output.outputs[0]
    (logprobs,) = answer.logprobs or ()
    logprob = logprobs[answer.token_ids[0]]
    assert repr(answer) == (
        f"CompletionOutput(index=0, text=' Paris', token_ids={answer.token_ids}, "
        f"cumulative_logprob={logprob.logprob}, logprobs=[{{{answer.token_ids[0]}: Logprob(logprob={logprob.logprob}, "
        "rank=1, decoded_token=' Paris')}], finish_reason=length, stop_reason=None)"
    )
    shown = repr(output)
    assert shown.startswith(f"RequestOutput(request_id={output.request_id}, prompt='The capital of France is', ")
    assert shown.endswith(f"lora_request=None, num_cached_tokens={output.num_cached_tokens})")
    assert f"outputs=[{answer!r}], finished=True" in shown
    assert "encoder_prompt=None, encoder_prompt_token_ids=None, prompt_logprobs=[None, {" in shown


def test_every_attribute_of_an_output_is_there(llm: LLM) -> None:
    (output,) = llm.generate([{"prompt_token_ids": [5, 6, 7]}], SamplingParams(max_tokens=2, seed=1), use_tqdm=False)
    assert isinstance(output, RequestOutput)
    assert (output.prompt, output.prompt_token_ids, output.prompt_logprobs) == (None, [5, 6, 7], None)
    assert (output.lora_request, output.encoder_prompt, output.encoder_prompt_token_ids) == (None, None, None)
    metrics = output.metrics
    assert metrics is not None
    times = [metrics.arrival_time, metrics.first_scheduled_time, metrics.first_token_time, metrics.last_token_time]
    assert times == sorted(time for time in times if time is not None)
    assert metrics.last_token_time == metrics.finished_time
    answer = output.outputs[0]
    assert (answer.cumulative_logprob, answer.logprobs, answer.finished()) == (None, None, True)


@pytest.mark.parametrize("kind", [RequestOutputKind.CUMULATIVE, RequestOutputKind.FINAL_ONLY])
def test_answers_come_whole_whatever_the_output_kind(kind: RequestOutputKind, llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=3, output_kind=kind, extra_args={}, logits_processors=[])
    (output,) = llm.generate("The capital of France is", params, use_tqdm=False)
    assert output.outputs[0].text.startswith(" Paris")


def test_every_name_of_sampling_params_is_taken_and_has_the_default_that_users_know() -> None:
    defaults: dict[str, Any] = {
        "n": 1,
        "best_of": None,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "seed": None,
        "stop": None,
        "stop_token_ids": None,
        "bad_words": None,
        "include_stop_str_in_output": False,
        "ignore_eos": False,
        "max_tokens": 16,
        "min_tokens": 0,
        "logprobs": None,
        "prompt_logprobs": None,
        "detokenize": True,
        "skip_special_tokens": True,
        "spaces_between_special_tokens": True,
        "logits_processors": None,
        "truncate_prompt_tokens": None,
        "output_kind": RequestOutputKind.FINAL_ONLY,
        "guided_decoding": None,
        "structured_outputs": None,
        "logit_bias": None,
        "allowed_token_ids": None,
        "extra_args": None,
        "use_beam_search": False,
        "early_stopping": False,
        "length_penalty": 1.0,
    }
    assert SamplingParams(**defaults) == SamplingParams()
    for name in set(defaults) - {"stop", "stop_token_ids", "bad_words"}:  # their None is an empty list
        assert getattr(SamplingParams(), name) == defaults[name], name
    assert SamplingParams(top_k=-1) == SamplingParams(top_k=0)
    with pytest.raises(TypeError):
        SamplingParams(0.5)


def test_parameters_are_where_users_look_for_them() -> None:
    for name in ("BeamSearchParams", "GuidedDecodingParams", "SamplingParams", "StructuredOutputsParams"):
        assert getattr(zqserve.sampling_params, name) is getattr(zqserve, name)
    assert SamplingParams().output_kind is RequestOutputKind.FINAL_ONLY


def test_without_detokenizing_an_answer_is_its_ids(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    (whole,) = llm.generate("The capital of France is", params, use_tqdm=False)
    (bare,) = llm.generate("The capital of France is", params.clone(detokenize=False), use_tqdm=False)
    assert (bare.outputs[0].text, bare.outputs[0].token_ids) == ("", whole.outputs[0].token_ids)


def test_prompts_are_answered_by_priority_and_returned_in_their_order() -> None:
    llm = LLM(str(DEMO_MODEL), num_gpu_blocks_override=64, max_num_seqs=1, scheduling_policy="priority")
    prompts = ["one", "two", "three"]
    params = SamplingParams(max_tokens=4, ignore_eos=True)
    outputs = llm.generate(prompts, params, use_tqdm=False, priority=[3, 1, 2])
    assert [output.prompt for output in outputs] == prompts
    times = [output.metrics.first_token_time for output in outputs if output.metrics is not None]
    assert times[1] <= times[2] <= times[0]  # pyright: ignore[reportOptionalOperand]
    assert times[1] != times[0]
    with pytest.raises(InvalidRequestError, match="3 prompts, but 1"):
        llm.generate(prompts, params, use_tqdm=False, priority=[1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"output_kind": RequestOutputKind.DELTA}, "answers are returned whole"),
        ({"logits_processors": [lambda ids, logits: logits]}, "no code of the caller"),
        ({"extra_args": {"plugin": 1}}, "nobody reads plugin"),
    ],
)
def test_parameters_that_cannot_be_honoured_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said) as caught:
        SamplingParams(**arguments)
    assert caught.value.param in arguments


def test_default_sampling_params_are_those_of_the_model_and_of_the_overrides() -> None:
    overrides = {"temperature": 0.25, "max_new_tokens": 5}
    llm = LLM(str(DEMO_MODEL), num_gpu_blocks_override=64, override_generation_config=overrides)
    params = llm.get_default_sampling_params()
    assert (params.temperature, params.max_tokens) == (0.25, 5)
    plain = LLM(str(DEMO_MODEL), num_gpu_blocks_override=64, generation_config="vllm").get_default_sampling_params()
    assert plain == SamplingParams()
    with pytest.raises(ValueError, match="does not take top_x"):
        LLM(str(DEMO_MODEL), override_generation_config={"top_x": 1})


def test_the_tokenizer_is_the_one_that_prompts_go_through(llm: LLM) -> None:
    ids = llm.get_tokenizer().encode("The capital of France is")
    (output,) = llm.generate("The capital of France is", SamplingParams(max_tokens=1), use_tqdm=False)
    assert output.prompt_token_ids == ids
    assert llm.get_tokenizer().decode(ids) == "The capital of France is"


def test_the_tokenizer_makes_the_prompts_of_chat(llm: LLM) -> None:
    tokenizer = llm.get_tokenizer()
    text = tokenizer.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True)
    assert isinstance(text, str)
    (chat,) = llm.chat(CONVERSATION, SamplingParams(temperature=0, max_tokens=8), use_tqdm=False)
    assert chat.prompt == text
    assert chat.prompt_token_ids == tokenizer.apply_chat_template(CONVERSATION, add_generation_prompt=True)
    reference = AutoTokenizer.from_pretrained(DEMO_MODEL)
    assert text == reference.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(chat.prompt_token_ids) == reference.decode(chat.prompt_token_ids) == text
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == (reference.eos_token, reference.eos_token_id)
    assert len(tokenizer) == len(reference)


def test_content_format_of_a_call_wins_over_that_of_the_model(llm: LLM) -> None:
    template = "{% for m in messages %}{{ m.content is string }}{% endfor %}"
    for content_format, said in (("string", "True"), ("openai", "False"), ("auto", "True")):
        (output,) = llm.chat(
            CONVERSATION[1:],
            SamplingParams(max_tokens=1),
            use_tqdm=False,
            chat_template=template,
            chat_template_content_format=content_format,  # type: ignore[arg-type]
        )
        assert output.prompt == said


def test_a_template_of_chat_sees_documents_and_variables(llm: LLM, tmp_path: Path) -> None:
    path = tmp_path / "template.jinja"
    path.write_text("{{ documents[0].text }} {{ messages[0].content }}{{ end }}")
    (output,) = llm.chat(
        CONVERSATION[1:],
        SamplingParams(max_tokens=1),
        use_tqdm=False,
        chat_template=load_chat_template(path),
        documents=[{"title": "t", "text": "Known."}],
        chat_template_kwargs={"end": "!"},
    )
    assert output.prompt == "Known. What is the capital of France?!"


def test_processed_logprobs_are_of_what_the_token_was_drawn_from() -> None:
    llm = LLM(str(DEMO_MODEL), num_gpu_blocks_override=64, logprobs_mode="processed_logprobs")
    choice = GuidedDecodingParams(choice=["7"])
    for params in (
        SamplingParams(temperature=0.7, top_k=1, logprobs=3, max_tokens=1),
        SamplingParams(temperature=1.0, top_p=1e-6, logprobs=3, max_tokens=1),
        SamplingParams(temperature=1.0, min_p=1.0, logprobs=3, max_tokens=1),
        SamplingParams(temperature=0, logprobs=3, max_tokens=1, guided_decoding=choice),
    ):
        (output,) = llm.generate("The capital of France is", params, use_tqdm=False)
        (logprobs,) = output.outputs[0].logprobs or ()
        values = sorted((entry.logprob for entry in logprobs.values()), reverse=True)
        assert values[0] == pytest.approx(0, abs=1e-6)
        assert values[1:] == [-math.inf] * (len(values) - 1)
    biased = SamplingParams(temperature=0, logprobs=0, max_tokens=1, logit_bias={7: 100})
    (output,) = llm.generate("The capital of France is", biased, use_tqdm=False)
    assert output.outputs[0].token_ids == [7]
    assert output.outputs[0].cumulative_logprob == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"trust_remote_code": True}, "code that comes with a model is never run"),
        ({"tensor_parallel_size": 2}, "one device"),
        ({"quantization": "awq"}, "quantization must be one of none, int8"),
        ({"cpu_offload_gb": 4}, "not offloaded"),
        ({"hf_overrides": {"rope_theta": 1}}, "config.json"),
        ({"skip_tokenizer_init": True}, "skip_tokenizer_init"),
        ({"tokenizer_mode": "slow"}, "tokenizer.json"),
        ({"enable_lora": True}, "merge them"),
        ({"speculative_config": {"method": "eagle"}}, "speculative_config: method must be"),
        ({"dtype": "float8"}, "dtype must be one of auto, half"),
        ({"load_format": "gguf"}, "load_format must be one of"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization"),
        ({"max_num_seqs": 0}, "max_num_seqs must be at least 1"),
        ({"seed": "x"}, "seed: expected `int`"),
        ({"logprobs_mode": "raw_logits"}, "logprobs_mode must be one of"),
        ({"chat_template_content_format": "list"}, "chat_template_content_format must be one of"),
    ],
)
def test_an_argument_that_cannot_be_honoured_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LLM(str(DEMO_MODEL), **arguments)


def test_an_argument_that_nobody_knows_is_a_type_error_naming_the_nearest() -> None:
    with pytest.raises(TypeError, match="Did you mean max_num_seqs"):
        LLM(str(DEMO_MODEL), max_num_sekvs=3)


def test_arguments_without_meaning_here_are_taken_and_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        llm = LLM(
            str(DEMO_MODEL),
            num_gpu_blocks_override=64,
            dtype=torch.float32,
            swap_space=4,
            async_scheduling=True,
            disable_log_stats=True,
            served_model_name="other",
            # What is done anyway, and what is not given:
            tensor_parallel_size=1,
            trust_remote_code=False,
            tokenizer_mode="auto",
            quantization=None,
            cpu_offload_gb=0,
            hf_overrides={},
        )
    told = {record.message.split()[0] for record in caplog.records if "has no effect" in record.message}
    assert told == {"swap_space", "async_scheduling", "disable_log_stats", "served_model_name"}
    assert llm.generate("The", SamplingParams(max_tokens=1), use_tqdm=False)[0].finished


def test_adapters_are_refused(llm: LLM) -> None:
    with pytest.raises(InvalidRequestError, match="lora_request"):
        llm.generate("The", lora_request=object())  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="lora_request"):
        llm.chat(CONVERSATION, lora_request=object())  # type: ignore[arg-type]

"""Steps begun before the host has asked for them, under a schedule that keeps asking for something else."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3ForCausalLM

from tests.server import tiny_tokenizers
from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.constraints import guided_step
from zqserve.engine_core.engine import EngineCore
from zqserve.engine_core.messages import EngineOutput, EngineRequest, Grammar
from zqserve.engine_core.model import device_automata
from zqserve.engine_core.model.model_runner import ModelRunner
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.guided.grammar import GrammarSpec, compile_grammar

from .test_engine import SHAPE

EOS, VOCAB_SIZE = 2, 400
PROMPTS = [[5, 9, 33, 2, 7, 61, 4, 18, 90, 77, 13, 20, 8, 3], [11], list(range(40, 55)), [42, 7, 7], [88, 3, 5, 1]]
ABORTED = 3
NUM_TOKENS = [9, 34, 20, 30, 10]
PENALTIES = {"repetition_penalty": 1.4, "frequency_penalty": 0.3, "presence_penalty": 0.2}
OBJECT = (
    '{"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "kind": {"enum": ["a", "bc"]}},'
    ' "required": ["name", "kind"], "additionalProperties": false}'
)
ANY_KEYS = '{"type": "object", "additionalProperties": {"type": "boolean"}, "minProperties": 2, "maxProperties": 3}'


def _request(key: int, **more: Any) -> EngineRequest:
    params = SamplingParams(
        temperature=1.2 if key % 2 else 0.0, top_k=40, seed=key, max_tokens=NUM_TOKENS[key], ignore_eos=True, **more
    )
    return EngineRequest(key=key, prompt_token_ids=PROMPTS[key], params=params)


def _guided(key: int, kind: Any, text: str, **more: Any) -> EngineRequest:
    params = SamplingParams(**{"temperature": 1.2, "seed": key, "max_tokens": 40, **more})
    grammar = Grammar(text.encode(), pickle.dumps(compile_grammar(GrammarSpec(kind, text))))
    prompt = PROMPTS[key % len(PROMPTS)]
    return EngineRequest(key=key, prompt_token_ids=prompt, params=params, eos_token_ids=[EOS], grammar=grammar)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    tiny_tokenizers.byte_level(directory)
    torch.manual_seed(1)
    config = Qwen3ForCausalLM.config_class(**{**SHAPE, "vocab_size": VOCAB_SIZE, "num_hidden_layers": 1})
    Qwen3ForCausalLM(config).eval().save_pretrained(directory)
    return directory


def _core(directory: Path, device: str, **config: Any) -> tuple[EngineCore, ModelRunner]:
    options = EngineConfig(model=str(directory), device=device, num_threads=1, **{"max_num_seqs": 4, **config})
    runner = ModelRunner(options, lambda line: None)
    return EngineCore(runner, options), runner


def _run(core: EngineCore, *messages: EngineRequest) -> dict[int, list[EngineOutput]]:
    """What comes of requests that begin together."""
    found: dict[int, list[EngineOutput]] = {message.key: [] for message in messages}
    for message in messages:
        core.add_request(message)
    while core.has_unfinished():
        for output in core.step().get(b"", []):
            assert output.error is None
            found[output.key].append(output)
    return found


def _tokens(outputs: list[EngineOutput]) -> list[int]:
    return [token for output in outputs for token in output.token_ids]


def test_steps_begun_ahead_change_no_token(folder: Path) -> None:
    cpu, _ = _core(folder, "cpu", num_blocks=8)
    more = [PENALTIES, {}, PENALTIES | {"logit_bias": {60: 2.5, 61: -3.0}}, {}, {}]
    alone = [_tokens(_run(cpu, _request(key, **fields))[key]) for key, fields in enumerate(more)]
    # Two stop where the host alone sees it; one whose logprobs the host scores comes and goes.
    params = SamplingParams(temperature=0, logprobs=1, max_tokens=5, ignore_eos=True)
    scored = EngineRequest(key=99, prompt_token_ids=[9, 8], params=params)
    alone_and_scored = _tokens(_run(cpu, scored)[99])
    stops = {0: alone[0][5], 4: alone[4][2]}
    core, runner = _core(folder, "cuda", num_blocks=4, max_num_batched_tokens=16)
    found: list[list[int]] = [[] for _ in PROMPTS]
    found_scored: list[int] = []
    is_aborted = False
    for step in range(150):
        if step % 2 == 0 and step // 2 < len(PROMPTS):
            key = step // 2
            stop = {"stop_token_ids": [stops[key]]} if key in stops else {}
            core.add_request(_request(key, **more[key], **stop))
        if step == 10:
            core.add_request(scored)
        if len(found[ABORTED]) >= 4 and not is_aborted:
            is_aborted = True
            core.abort(b"", [ABORTED])
        for output in core.step().get(b"", []):
            assert output.error is None
            (found_scored if output.key == 99 else found[output.key]).extend(output.token_ids)
        if step > 10 and not core.has_unfinished():
            break
    assert not core.has_unfinished()
    assert is_aborted
    for key, tokens in enumerate(found):
        expected = alone[key]
        if key in stops:
            expected = expected[: expected.index(stops[key]) + 1]
        assert tokens == (expected[: len(tokens)] if key == ABORTED else expected), key
    assert found_scored == alone_and_scored
    assert core.stats().num_preemptions > 0
    assert runner.num_ahead > 0.4 * sum(map(len, found))
    core.check()


def _any_request(key: int, choice: random.Random) -> EngineRequest:
    """Of any kind: drawn by the device or by the host, with changed logits or plain ones, with forced text or none."""
    fields: dict[str, Any] = {"temperature": choice.choice([0.0, 1.2]), "max_tokens": choice.randint(4, 16)}
    if choice.random() < 0.5:
        fields |= PENALTIES
    if choice.random() < 0.3:
        fields["min_tokens"] = 3
    if choice.random() < 0.2:
        fields["logprobs"] = 1
    if choice.random() < 0.2:
        return _guided(key, "regex", choice.choice([".*", r"(the|and| ){3,}", r"\w+, (north|south)(east)+"]), **fields)
    if choice.random() < 0.3:
        return _guided(key, "json", choice.choice([OBJECT, ANY_KEYS]), **fields)
    if choice.random() < 0.3:
        fields["logit_bias"] = {token_id: choice.uniform(-4, 4) for token_id in range(60, 70)}
    if choice.random() < 0.3:
        fields["allowed_token_ids"] = list(range(choice.randint(2, 40), VOCAB_SIZE, 3))
    prompt = choice.choices(range(3, VOCAB_SIZE), k=choice.randint(1, 20))
    params = SamplingParams(seed=key, **fields)
    words = [choice.choices(range(VOCAB_SIZE), k=choice.choice([1, 1, 2])) for _ in range(choice.randint(0, 2))]
    return EngineRequest(
        key=key, prompt_token_ids=prompt, params=params, eos_token_ids=[EOS], bad_words_token_ids=words
    )


@pytest.mark.parametrize("seed", range(2))
def test_any_requests_at_any_time_get_the_tokens_of_a_cpu(
    folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_automata, "WORK_SECONDS", 1000.0)
    choice = random.Random(seed)
    messages = [_any_request(key, choice) for key in range(5)]
    cpu, _ = _core(folder, "cpu", num_blocks=8)
    core, _ = _core(folder, "cuda", num_blocks=6, max_num_seqs=3, max_num_batched_tokens=24)
    core.prepare_guided_decoding()
    expected = _run(cpu, *messages)
    found: dict[int, list[EngineOutput]] = {message.key: [] for message in messages}
    waiting = list(messages)
    while waiting or core.has_unfinished():
        if waiting and (not core.has_unfinished() or choice.random() < 0.3):
            core.add_request(waiting.pop(0))
        for output in core.step().get(b"", []):
            found[output.key].append(output)
    for key, outputs in found.items():
        assert _tokens(outputs) == _tokens(expected[key]), key
        assert outputs[-1].finish_reason == expected[key][-1].finish_reason
    core.check()


def test_what_a_grammar_forces_counts_before_what_was_drawn_ahead(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [
        r"(north|south)(, east){2,4}( or west){3}",
        r"(in|at) (The capital|the end) of .{4}",
        r"[a-z]{9}-[a-z]{9}!!",
    ]
    messages = [_guided(number, "regex", text) for number, text in enumerate(texts)]
    cpu, _ = _core(folder, "cpu", num_blocks=40)
    core, runner = _core(folder, "cuda", num_blocks=40)
    core.prepare_guided_decoding()
    expected = _run(cpu, *messages)
    monkeypatch.setattr(device_automata, "WORK_SECONDS", 1000.0)
    # No time in a step to find out what is forced: it is found out later, and the device has drawn a token by then.
    monkeypatch.setattr(guided_step, "STEP_SECONDS", 0.0)
    found = _run(core, *messages)
    for message in messages:
        assert _tokens(found[message.key]) == _tokens(expected[message.key])
    assert runner.num_ahead > 0


def test_grammars_on_the_device_and_on_the_host_give_the_tokens_of_a_cpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_automata, "WORK_SECONDS", 1000.0)
    messages = [
        _request(0, logprobs=2),
        _guided(20, "regex", r"[a-z ]{90,120}\.", max_tokens=24, **PENALTIES),
        _guided(21, "json", OBJECT),
        _guided(22, "json", ANY_KEYS, max_tokens=12),
        _guided(23, "regex", r"(the|and| )+", temperature=0.0, min_tokens=9, max_tokens=12),
    ]
    cpu, _ = _core(folder, "cpu", num_blocks=40, max_num_seqs=8)
    core, runner = _core(folder, "cuda", num_blocks=40, max_num_seqs=8)
    core.prepare_guided_decoding()
    _run(core, _request(0, **PENALTIES, logit_bias={60: 9.0}))  # had the row that the host draws for next
    expected, found = _run(cpu, *messages), _run(core, *messages)
    for message in messages:
        theirs, ours = expected[message.key], found[message.key]
        assert _tokens(ours) == _tokens(theirs), message.key
        assert ours[-1].finish_reason == theirs[-1].finish_reason
        scores = [[entry for output in outputs for entry in output.logprobs or ()] for outputs in (theirs, ours)]
        for one, other in zip(*scores, strict=True):
            assert one.token_ids == other.token_ids
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert runner.num_ahead > 20  # of the two regexes and the first schema, once their automata are there
    core.check()

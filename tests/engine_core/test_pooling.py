"""Pooling in the engine core: a text is turned into what transformers makes of it, whatever stands beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

from tests.tiny_poolers import (
    DECODERS,
    ENCODERS,
    MAX_LENGTH,
    add_sentence_transformers_files,
    save_cross_encoder,
    save_decoder,
    save_encoder,
)
from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.errors import UnsupportedModelError
from zqserve.engine_core.messages import EngineOutput, EngineRequest
from zqserve.engine_core.pooling.pooling_messages import PoolingRequest
from zqserve.engine_core.pooling.pooling_params import PoolingParams, PoolingTask
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.serving_core import Core, ServingCore, build_core
from zqserve.engine_core.serving_mode import serving_mode

LENGTHS = (5, 1, 17, 5, 40, 8, 5)


def make_core(directory: Path, **options: Any) -> ServingCore:
    settings: dict[str, Any] = {"max_num_batched_tokens": 64, "num_blocks": 32, **options}
    core = build_core(EngineConfig(model=str(directory), num_threads=2, **settings), lambda _: None)
    assert isinstance(core, ServingCore)
    return core


def token_ids(length: int, number: int = 0) -> list[int]:
    """Ids of no special tokens."""
    return [4 + (7 * place + 13 * number + length) % 60 for place in range(length)]


def request(key: int, ids: list[int], task: PoolingTask = "embed", **options: Any) -> PoolingRequest:
    params = {name: options.pop(name) for name in ("dimensions", "use_activation") if name in options}
    return PoolingRequest(key=key, prompt_token_ids=ids, params=PoolingParams(task=task, **params), **options)


def run(core: Core, requests: list[PoolingRequest]) -> list[np.ndarray]:
    """The answers to all requests at once, in order."""
    for item in requests:
        core.add_request(item)
    outputs = finish(core)
    answers = []
    for item in requests:
        pooled = outputs[item.key].pooled
        assert pooled is not None, outputs[item.key].error
        answers.append(np.frombuffer(pooled.data, "<f4").reshape(pooled.shape))
    return answers


def finish(core: Core) -> dict[int, EngineOutput]:
    """Step until nothing is left; the last output of each key."""
    outputs: dict[int, EngineOutput] = {}
    while core.has_unfinished():
        for output in core.step().get(b"", ()):
            outputs[output.key] = output
    return outputs


def state_of(model: Any, ids: list[int], place: int) -> torch.Tensor:
    """transformers' own last state of one token."""
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0, place]


@pytest.mark.parametrize("name", [*ENCODERS, *DECODERS])
def test_vectors_are_those_of_transformers_alone_and_in_a_batch(name: str, tmp_path: Path) -> None:
    save: Callable[..., Path] = save_encoder if name in ENCODERS else save_decoder
    directory = save(name, tmp_path, auto_class=AutoModel)
    core = make_core(directory)
    texts = [token_ids(length, number) for number, length in enumerate(LENGTHS)]
    together = run(core, [request(key, ids) for key, ids in enumerate(texts)])
    model = AutoModel.from_pretrained(directory)
    for ids, vector in zip(texts, together, strict=True):
        place = 0 if name in ENCODERS else -1
        expected = normalize(state_of(model, ids, place), dim=-1)
        np.testing.assert_allclose(vector, expected, atol=1e-5)
        (alone,) = run(core, [request(0, ids)])
        np.testing.assert_allclose(alone, vector, atol=1e-5)


@pytest.mark.parametrize("name", [*ENCODERS, *DECODERS])
def test_classes_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    save: Callable[..., Path] = save_encoder if name in ENCODERS else save_decoder
    directory = save(name, tmp_path, auto_class=AutoModelForSequenceClassification, num_labels=3)
    core = make_core(directory)
    texts = [token_ids(length, number) for number, length in enumerate(LENGTHS)]
    answers = run(core, [request(key, ids, "classify") for key, ids in enumerate(texts)])
    (raw,) = run(core, [request(0, texts[0], "classify", use_activation=False)])
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    with torch.inference_mode():
        logits = [model(input_ids=torch.tensor([ids])).logits[0] for ids in texts]
    for answer, expected in zip(answers, logits, strict=True):
        np.testing.assert_allclose(answer, expected.softmax(-1), atol=1e-5)
    np.testing.assert_allclose(raw, logits[0], atol=1e-5)


def test_each_token_is_classified(tmp_path: Path) -> None:
    directory = save_encoder("Bert", tmp_path, auto_class=AutoModelForTokenClassification, num_labels=4)
    texts = [token_ids(7), token_ids(3)]
    answers = run(make_core(directory), [request(key, ids, "token_classify") for key, ids in enumerate(texts)])
    model = AutoModelForTokenClassification.from_pretrained(directory)
    for ids, answer in zip(texts, answers, strict=True):
        with torch.inference_mode():
            expected = model(input_ids=torch.tensor([ids])).logits[0].softmax(-1)
        np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_a_pair_is_read_with_its_token_types(tmp_path: Path) -> None:
    directory = save_cross_encoder(tmp_path)
    ids, types = token_ids(9), [0] * 4 + [1] * 5
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([types])).logits[0].sigmoid()
    plain, typed = run(
        make_core(directory),
        [request(0, ids, "classify"), request(1, ids, "classify", token_type_ids=types)],
    )
    np.testing.assert_allclose(typed, expected, atol=1e-5)
    assert abs(float(plain[0] - typed[0])) > 1e-4


@pytest.mark.parametrize("mode", ["cls", "mean", "max"])
def test_sentence_transformers_files_say_how_to_pool(mode: str, tmp_path: Path) -> None:
    directory = add_sentence_transformers_files(save_encoder("Bert", tmp_path), mode=mode, max_seq_length=20)
    core = make_core(directory)
    assert core.max_model_len == 20
    ids = token_ids(12)
    vector, raw = run(core, [request(0, ids), request(1, ids, use_activation=False)])
    with torch.inference_mode():
        states = AutoModel.from_pretrained(directory)(input_ids=torch.tensor([ids])).last_hidden_state[0]
    expected = {"cls": states[0], "mean": states.mean(0), "max": states.amax(0)}[mode]
    np.testing.assert_allclose(raw, expected, atol=1e-5)
    np.testing.assert_allclose(vector, normalize(expected, dim=-1), atol=1e-5)


def test_a_dense_layer_follows_the_pooling(tmp_path: Path) -> None:
    directory = add_sentence_transformers_files(save_encoder("Bert", tmp_path))
    modules = json.loads((directory / "modules.json").read_text())
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    (directory / "modules.json").write_text(json.dumps([*modules[:2], dense]))
    linear = torch.nn.Linear(32, 8)
    (directory / "2_Dense").mkdir()
    torch.save(
        {f"linear.{key}": value for key, value in linear.state_dict().items()}, directory / "2_Dense/pytorch_model.bin"
    )
    settings = {"in_features": 32, "out_features": 8, "activation_function": "torch.nn.modules.activation.Tanh"}
    (directory / "2_Dense" / "config.json").write_text(json.dumps(settings))
    ids = token_ids(12)
    (vector,) = run(make_core(directory), [request(0, ids)])
    with torch.inference_mode():
        states = AutoModel.from_pretrained(directory)(input_ids=torch.tensor([ids])).last_hidden_state[0]
        expected = torch.tanh(linear(states.mean(0)))
    np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_every_token_has_a_vector_when_asked(tmp_path: Path) -> None:
    directory = save_encoder("Bert", tmp_path)
    ids = token_ids(6)
    whole, tokens = run(make_core(directory), [request(0, ids), request(1, ids, "token_embed")])
    with torch.inference_mode():
        states = AutoModel.from_pretrained(directory)(input_ids=torch.tensor([ids])).last_hidden_state[0]
    assert tokens.shape == (6, 32)
    np.testing.assert_allclose(tokens, normalize(states, dim=-1), atol=1e-5)
    np.testing.assert_allclose(whole, tokens[0], atol=1e-5)


def test_dimensions_cut_a_vector_before_it_is_normalised(tmp_path: Path) -> None:
    core = make_core(save_encoder("Bert", tmp_path))
    whole, cut = run(core, [request(0, token_ids(6), use_activation=False), request(1, token_ids(6), dimensions=8)])
    np.testing.assert_allclose(cut, whole[:8] / np.linalg.norm(whole[:8]), atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_a_language_model_embeds_beside_generation(name: str, tmp_path: Path) -> None:
    directory = save_decoder(name, tmp_path)
    alone = build_core(EngineConfig(model=str(directory), num_blocks=32, num_threads=2), lambda _: None)
    core = make_core(directory, task="embedding")
    params = SamplingParams(temperature=0, max_tokens=12, seed=0, ignore_eos=True)
    generations: list[list[int]] = []
    vectors: dict[int, np.ndarray] = {}
    for engine in (alone, core):
        engine.add_request(EngineRequest(key=100, prompt_token_ids=token_ids(20), params=params))
        if engine is core:
            for key, length in enumerate(LENGTHS):
                engine.add_request(request(key, token_ids(length, key)))
        generated: list[int] = []
        while engine.has_unfinished():
            for output in engine.step().get(b"", ()):
                generated += output.token_ids
                if output.pooled is not None:
                    vectors[output.key] = np.frombuffer(output.pooled.data, "<f4")
        generations.append(generated)
    assert generations[0] == generations[1]
    assert len(generations[0]) == 12
    model = AutoModel.from_pretrained(directory)
    for key, length in enumerate(LENGTHS):
        expected = normalize(state_of(model, token_ids(length, key), -1), dim=-1)
        np.testing.assert_allclose(vectors[key], expected, atol=1e-5)


def test_a_step_keeps_to_its_budget_and_to_the_order(tmp_path: Path) -> None:
    core = make_core(save_encoder("Bert", tmp_path), max_num_batched_tokens=20)
    for key, length in enumerate((8, 8, 8, 40, 4, 4)):
        core.add_request(request(key, token_ids(length)))
    steps = []
    while core.has_unfinished():
        steps.append([output.key for output in core.step()[b""]])
    assert steps == [[0, 1], [2], [3], [4, 5]]
    assert core.stats().num_step_tokens == 72


def test_priority_comes_first_where_the_policy_says_so(tmp_path: Path) -> None:
    core = make_core(save_encoder("Bert", tmp_path), max_num_seqs=1, scheduling_policy="priority")
    for key, priority in enumerate((2, 0, 1)):
        core.add_request(request(key, token_ids(4), priority=priority))
    assert [core.step()[b""][0].key for _ in range(3)] == [1, 2, 0]


def test_nothing_comes_of_an_aborted_text(tmp_path: Path) -> None:
    core = make_core(save_encoder("Bert", tmp_path), max_num_seqs=1)
    for key in range(4):
        core.add_request(request(key, token_ids(4)), b"one" if key else b"two")
    core.abort(b"one", [1, 77])
    assert sorted(core.abort_client(b"two")) == [0]
    assert core.stats().num_waiting == 2
    core.add_request(request(1, token_ids(4)), b"one")
    answered = [output.key for _ in range(3) for output in core.step()[b"one"]]
    assert answered == [2, 3, 1]
    assert not core.has_unfinished()


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (request(0, []), "empty"),
        (request(0, token_ids(MAX_LENGTH + 1)), f"max_model_len is {MAX_LENGTH}"),
        (request(0, [4, 100_000]), "vocabulary"),
        (request(0, [4, -1]), "vocabulary"),
        (request(0, [4, 5], "classify"), "task"),
        (request(0, [4, 5], token_type_ids=[0, 9]), "token_type_ids"),
        (EngineRequest(key=0, prompt_token_ids=[4], params=SamplingParams(seed=1)), "pooling alone"),
    ],
)
def test_a_bad_request_is_answered_and_the_others_go_on(
    bad: PoolingRequest | EngineRequest, said: str, tmp_path: Path
) -> None:
    core = make_core(save_encoder("Bert", tmp_path))
    core.add_request(bad)
    core.add_request(request(1, token_ids(4)))
    outputs = finish(core)
    assert said in (outputs[0].error or "")
    assert outputs[1].pooled is not None


def test_weights_that_do_not_fill_the_model_are_refused(tmp_path: Path) -> None:
    directory = save_encoder("Bert", tmp_path)
    config = json.loads((directory / "config.json").read_text())
    config["architectures"] = ["BertForSequenceClassification"]
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match="classifier"):
        make_core(directory)


@pytest.mark.parametrize(
    ("architecture", "flags", "generates", "pooling"),
    [
        ("LlamaForCausalLM", {}, True, None),
        ("LlamaForCausalLM", {"task": "embedding"}, True, "embed"),
        ("LlamaForCausalLM", {"task": "score"}, True, "embed"),
        ("LlamaForCausalLM", {"runner": "pooling"}, False, "embed"),
        ("LlamaForCausalLM", {"runner": "generate"}, True, None),
        ("GPT2LMHeadModel", {}, True, None),
        ("Qwen3Model", {}, False, "embed"),
        ("BertForMaskedLM", {}, False, "embed"),
        ("BertModel", {"task": "embed"}, False, "embed"),
        ("BertForSequenceClassification", {}, False, "classify"),
        ("BertForSequenceClassification", {"convert": "embed"}, False, "embed"),
        ("BertForTokenClassification", {"runner": "pooling"}, False, "token_classify"),
    ],
)
def test_the_flags_say_what_a_model_is_served_for(
    architecture: str, flags: dict[str, Any], generates: bool, pooling: str | None, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    mode = serving_mode(tmp_path, **flags)
    assert (mode.generates, mode.pooling) == (generates, pooling)


@pytest.mark.parametrize(
    ("architecture", "flags"),
    [
        ("LlamaForCausalLM", {"task": "classify"}),
        ("LlamaForCausalLM", {"task": "generate", "runner": "pooling"}),
        ("BertModel", {"task": "generate"}),
        ("BertModel", {"convert": "classify"}),
        ("BertForSequenceClassification", {"runner": "generate"}),
    ],
)
def test_flags_that_do_not_fit_the_model_are_refused(architecture: str, flags: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    with pytest.raises(UnsupportedModelError):
        serving_mode(tmp_path, **flags)


def test_a_language_model_of_sentence_transformers_embeds_alone(tmp_path: Path) -> None:
    directory = add_sentence_transformers_files(save_decoder("Qwen3", tmp_path))
    assert serving_mode(directory).pooling == "embed"
    assert not serving_mode(directory).generates
    assert serving_mode(directory, runner="generate", task="embedding").generates

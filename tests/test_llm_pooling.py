"""`LLM.embed`, `encode`, `classify` and `score`: the offline door to pooling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

from tests.tiny_poolers import TEXTS, add_sentence_transformers_files, save_cross_encoder, save_decoder, save_encoder
from zqserve import LLM, PoolingParams, PoolingRequestOutput, SamplingParams
from zqserve.engine_core.errors import InvalidRequestError, UnsupportedModelError

TEXTS = [text for text in TEXTS if len(text) < 60]


def make_llm(directory: Path, **options: Any) -> LLM:
    return LLM(str(directory), num_gpu_blocks_override=32, num_threads=2, **options)


def test_embed_gives_vectors_in_the_order_of_the_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = add_sentence_transformers_files(save_encoder("Bert", tmp_path))
    llm = make_llm(directory, task="embed")
    outputs = llm.embed(TEXTS)
    assert "Processed texts" in capsys.readouterr().err
    model = AutoModel.from_pretrained(directory)
    for text, output in zip(TEXTS, outputs, strict=True):
        assert isinstance(output, PoolingRequestOutput)
        assert output.finished
        assert output.prompt_token_ids == llm.get_tokenizer().encode(text)
        assert output.outputs.hidden_size == 32
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([output.prompt_token_ids])).last_hidden_state[0]
        expected = normalize(states.mean(0), dim=-1)
        assert output.outputs.embedding == pytest.approx(expected.tolist(), abs=1e-5)
    (single,) = llm.embed({"prompt_token_ids": outputs[0].prompt_token_ids}, use_tqdm=False)
    assert single.outputs.embedding == pytest.approx(outputs[0].outputs.embedding, abs=1e-5)
    assert str(single.outputs) == "EmbeddingOutput(hidden_size=32)"
    assert llm.embed([]) == []


def test_encode_gives_tensors(tmp_path: Path) -> None:
    llm = make_llm(save_encoder("Bert", tmp_path))
    (whole,) = llm.encode("fox", use_tqdm=False)
    assert isinstance(whole.outputs.data, torch.Tensor)
    assert whole.outputs.data.shape == (32,)
    (tokens,) = llm.encode("fox", pooling_task="token_embed", use_tqdm=False)
    assert tokens.outputs.data.shape == (len(tokens.prompt_token_ids), 32)
    raw, normal = llm.encode(["fox"] * 2, [PoolingParams(use_activation=False), PoolingParams()], use_tqdm=False)
    assert torch.allclose(normalize(raw.outputs.data, dim=-1), normal.outputs.data, atol=1e-5)
    (long,) = llm.encode("dog " * 100, truncate_prompt_tokens=10, use_tqdm=False)
    assert len(long.prompt_token_ids) == 10


def test_classify_gives_probabilities(tmp_path: Path) -> None:
    directory = save_encoder("Roberta", tmp_path, auto_class=AutoModelForSequenceClassification, num_labels=3)
    outputs = make_llm(directory).classify(TEXTS, use_tqdm=False)
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    for output in outputs:
        with torch.inference_mode():
            expected = model(input_ids=torch.tensor([output.prompt_token_ids])).logits[0].softmax(-1)
        assert output.outputs.probs == pytest.approx(expected.tolist(), abs=1e-5)
        assert output.outputs.num_classes == 3


def test_classifiers_make_vectors_of_texts_and_classes_of_tokens(tmp_path: Path) -> None:
    kinds = {"texts": AutoModelForSequenceClassification, "tokens": AutoModelForTokenClassification}
    texts, tokens = (
        save_encoder("Bert", tmp_path / name, auto_class=auto_class, num_labels=3) for name, auto_class in kinds.items()
    )
    (vector,) = make_llm(texts, convert="embed").embed("fox", use_tqdm=False)
    assert vector.outputs.hidden_size == 32
    (each,) = make_llm(tokens, runner="pooling").encode("fox", pooling_task="token_classify", use_tqdm=False)
    with torch.inference_mode():
        model = AutoModelForTokenClassification.from_pretrained(tokens)
        expected = model(input_ids=torch.tensor([each.prompt_token_ids])).logits[0].softmax(-1)
    assert torch.allclose(each.outputs.data, expected, atol=1e-5)


@pytest.mark.parametrize("save", [save_cross_encoder, lambda directory: save_encoder("Bert", directory)])
def test_score_compares_pairs(save: Callable[[Path], Path], tmp_path: Path) -> None:
    llm = make_llm(save(tmp_path))
    one_to_many = llm.score(TEXTS[0], TEXTS, use_tqdm=False)
    each = [llm.score(TEXTS[0], text, use_tqdm=False)[0].outputs.score for text in TEXTS]
    assert [output.outputs.score for output in one_to_many] == pytest.approx(each, abs=1e-5)
    pairs = llm.score(TEXTS[:2], TEXTS[2:4], use_tqdm=False)
    assert len(pairs) == 2
    with pytest.raises(InvalidRequestError, match="got 2 and 3"):
        llm.score(TEXTS[:2], TEXTS[:3])


def test_a_language_model_embeds_beside_generation(tmp_path: Path) -> None:
    directory = save_decoder("Llama", tmp_path)
    llm = make_llm(directory, task="embedding")
    plain = make_llm(directory)
    params = SamplingParams(temperature=0, max_tokens=8)
    before = llm.generate(TEXTS, params, use_tqdm=False)
    vectors = [output.outputs.embedding for output in llm.embed(TEXTS, use_tqdm=False)]
    after = llm.generate(TEXTS, params, use_tqdm=False)
    expected = plain.generate(TEXTS, params, use_tqdm=False)
    for texts in (before, after):
        assert [text.outputs[0].token_ids for text in texts] == [text.outputs[0].token_ids for text in expected]
    assert all(sum(value**2 for value in vector) == pytest.approx(1.0, abs=1e-4) for vector in vectors)
    pooled_alone = make_llm(directory, runner="pooling", override_pooler_config={"pooling_type": "MEAN"})
    (mean,) = pooled_alone.embed(TEXTS[0], use_tqdm=False)
    with torch.inference_mode():
        states = AutoModel.from_pretrained(directory)(input_ids=torch.tensor([mean.prompt_token_ids]))
    wanted = normalize(states.last_hidden_state[0].mean(0), dim=-1)
    assert mean.outputs.embedding == pytest.approx(wanted.tolist(), abs=1e-5)
    with pytest.raises(InvalidRequestError, match="not served for generation"):
        pooled_alone.generate("x")
    with pytest.raises(InvalidRequestError, match='task="embedding"'):
        plain.embed("x")


def test_mistakes_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    directory = save_encoder("Bert", tmp_path)
    llm = make_llm(directory)
    with pytest.raises(InvalidRequestError, match="does not answer the task classify"):
        llm.classify("x")
    with pytest.raises(InvalidRequestError, match="matryoshka"):
        llm.embed("x", pooling_params=PoolingParams(dimensions=4))
    with pytest.raises(InvalidRequestError, match="maximum context length"):
        llm.embed("dog " * 100)
    with pytest.raises(InvalidRequestError, match="1 prompts, but 2"):
        llm.embed("x", pooling_params=[PoolingParams()] * 2)
    with pytest.raises(UnsupportedModelError, match="cannot generate"):
        make_llm(directory, task="generate")
    with pytest.raises(ValueError, match="pooling type"):
        make_llm(directory, pooler_config={"pooling_type": "STEP"})

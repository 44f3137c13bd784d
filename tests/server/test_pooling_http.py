"""Embeddings, scores, ranks and classes over HTTP, on tiny models with random weights."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from tests.faults.processes import wait_until
from tests.running_server import RunningServer, start_server
from tests.tiny_poolers import (
    MAX_LENGTH,
    TEXTS,
    add_sentence_transformers_files,
    save_cross_encoder,
    save_decoder,
    save_encoder,
)

QUERY = "What is the capital of France?"
NONE_WAITS = 'vllm:num_requests_waiting{model_name="demo"} 0.0'
DOCUMENTS = ["The lazy dog.", "Paris is the capital of France.", "An answer", "fox"]


def serve(factory: pytest.TempPathFactory, directory: Path, *flags: str) -> RunningServer:
    small = ("--kv-cache-memory", "16M", "--max-num-seqs", "16")
    return start_server(factory.mktemp("log") / "log", "--model", str(directory), *small, *flags)


@pytest.fixture(scope="module")
def embedder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = save_encoder("Bert", tmp_path_factory.mktemp("embedder"), is_matryoshka=True)
    return add_sentence_transformers_files(directory)


@pytest.fixture(scope="module")
def embedder(embedder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = serve(tmp_path_factory, embedder_dir)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def cross_encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cross_encoder(tmp_path_factory.mktemp("cross_encoder"))


@pytest.fixture(scope="module")
def cross_encoder(cross_encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = serve(tmp_path_factory, cross_encoder_dir)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def classifier_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(
        "DistilBert",
        tmp_path_factory.mktemp("classifier"),
        auto_class=AutoModelForSequenceClassification,
        id2label={0: "good", 1: "bad", 2: "neither"},
        label2id={"good": 0, "bad": 1, "neither": 2},
    )


@pytest.fixture(scope="module")
def classifier(classifier_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = serve(tmp_path_factory, classifier_dir)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def decoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decoder("Qwen3", tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def decoder(decoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = serve(tmp_path_factory, decoder_dir, "--task", "embedding", "--score-format", "float")
    yield server
    server.stop()


def post(server: RunningServer, path: str, **body: Any) -> Any:
    response = httpx.post(server.url + path, json=body, headers=server.headers, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def error_of(server: RunningServer, path: str, **body: Any) -> dict[str, Any]:
    response = httpx.post(server.url + path, json=body, headers=server.headers, timeout=60)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    is_unsupported = "not supported yet" in error["message"]
    assert (error["type"], error["code"]) == ("NotImplementedError" if is_unsupported else "BadRequestError", 400)
    return error


def mean_vector(directory: Path, text: str, max_length: int = 32) -> np.ndarray:
    """transformers' own: mean of the last states, normalised."""
    inputs = AutoTokenizer.from_pretrained(directory)(text, return_tensors="pt", truncation=True, max_length=max_length)
    with torch.inference_mode():
        states = AutoModel.from_pretrained(directory)(**inputs).last_hidden_state[0]
    return normalize(states.mean(0), dim=-1).numpy()


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def test_the_sdk_gets_the_vectors_of_transformers(embedder: RunningServer, embedder_dir: Path) -> None:
    texts = TEXTS[:4]
    answer = embedder.openai().embeddings.create(model="demo", input=texts)  # the SDK asks for base64 by itself
    assert [item.index for item in answer.data] == [0, 1, 2, 3]
    for item, text in zip(answer.data, texts, strict=True):
        np.testing.assert_allclose(item.embedding, mean_vector(embedder_dir, text), atol=1e-5)
    assert answer.model == "demo"
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


def test_float_and_base64_are_the_same_vector(embedder: RunningServer) -> None:
    as_float = post(embedder, "/v1/embeddings", input=TEXTS[0], encoding_format="float")
    assert as_float["id"].startswith("embd-")
    assert (as_float["object"], as_float["data"][0]["object"]) == ("list", "embedding")
    as_text = post(embedder, "/v1/embeddings", input=TEXTS[0], encoding_format="base64")["data"][0]["embedding"]
    vector = as_float["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(as_text), "<f4").tolist() == vector
    swapped = post(embedder, "/v1/embeddings", input=TEXTS[0], encoding_format="base64", endianness="big")
    assert np.frombuffer(base64.b64decode(swapped["data"][0]["embedding"]), ">f4").tolist() == vector


def test_token_ids_are_taken_as_they_are(embedder: RunningServer) -> None:
    ids = [post(embedder, "/tokenize", prompt=text)["tokens"] for text in TEXTS[:2]]
    texts = post(embedder, "/v1/embeddings", input=TEXTS[:2])
    several = post(embedder, "/v1/embeddings", input=ids)
    assert [item["embedding"] for item in several["data"]] == [item["embedding"] for item in texts["data"]]
    assert several["usage"] == texts["usage"]
    single = post(embedder, "/v1/embeddings", input=ids[0])
    assert single["data"][0]["embedding"] == pytest.approx(texts["data"][0]["embedding"], abs=1e-5)
    bare = post(embedder, "/v1/embeddings", input=TEXTS[0], add_special_tokens=False)
    assert bare["usage"]["prompt_tokens"] == len(ids[0]) - 2


def test_a_vector_does_not_depend_on_its_company(embedder: RunningServer) -> None:
    texts = (TEXTS[:4] + TEXTS[5:]) * 40
    together = post(embedder, "/v1/embeddings", input=texts)["data"]
    for index in (0, 3, 5, 100, 239):
        alone = post(embedder, "/v1/embeddings", input=texts[index])["data"][0]
        assert together[index]["embedding"] == pytest.approx(alone["embedding"], abs=1e-5)


def test_truncation_keeps_the_special_tokens(embedder: RunningServer, embedder_dir: Path) -> None:
    text = TEXTS[0]
    tokenizer = AutoTokenizer.from_pretrained(embedder_dir)
    for side in ("right", "left"):
        tokenizer.truncation_side = side
        ids = tokenizer(text, truncation=True, max_length=6)["input_ids"]
        expected = post(embedder, "/v1/embeddings", input=ids)
        cut = post(embedder, "/v1/embeddings", input=text, truncate_prompt_tokens=6, truncation_side=side)
        assert cut["data"][0]["embedding"] == pytest.approx(expected["data"][0]["embedding"], abs=1e-5)
        assert cut["usage"]["prompt_tokens"] == 6
    whole = post(embedder, "/v1/embeddings", input="dog " * 100, truncate_prompt_tokens=-1)
    assert whole["usage"]["prompt_tokens"] == 32


def test_dimensions_cut_and_normalise(embedder: RunningServer) -> None:
    whole = np.array(post(embedder, "/v1/embeddings", input="dog")["data"][0]["embedding"])
    answer = embedder.openai().embeddings.create(model="demo", input="dog", dimensions=8)
    np.testing.assert_allclose(answer.data[0].embedding, whole[:8] / np.linalg.norm(whole[:8]), atol=1e-5)
    raw = post(embedder, "/v1/embeddings", input="dog", normalize=False)["data"][0]["embedding"]
    assert np.linalg.norm(raw) != pytest.approx(1.0, abs=1e-3)
    np.testing.assert_allclose(np.array(raw) / np.linalg.norm(raw), whole, atol=1e-5)
    assert post(embedder, "/v1/embeddings", input="dog", use_activation=False)["data"][0]["embedding"] == raw
    anyway = {"embed_dtype": "float32", "use_activation": True, "add_special_tokens": True, "user": "somebody"}
    assert post(embedder, "/v1/embeddings", input="dog", **anyway)["data"][0]["embedding"] == whole.tolist()


def test_tokenize_adds_the_tokens_of_the_model_unless_told_not_to(embedder: RunningServer) -> None:
    bare = post(embedder, "/tokenize", prompt="dog", add_special_tokens=False)
    whole = post(embedder, "/tokenize", prompt="dog", return_token_strs=True)
    assert whole["tokens"] == [1, *bare["tokens"], 2]
    assert (whole["token_strs"][0], whole["token_strs"][-1]) == ("[CLS]", "[SEP]")
    assert post(embedder, "/tokenize", prompt="")["tokens"] == [1, 2]
    assert (bare["count"], bare["max_model_len"], bare["token_strs"]) == (len(bare["tokens"]), 32, None)
    assert post(embedder, "/detokenize", tokens=whole["tokens"])["prompt"] == "[CLS] dog [SEP]"


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"input": []}, "input", "empty"),
        ({}, "input", "either input or messages"),
        ({"input": 5}, "input", "expected"),
        ({"input": ["x", 5]}, "input", "either texts"),
        ({"input": [5, 100_000]}, "input", "token id"),
        ({"input": [[4], []]}, "input[1]", "empty"),
        ({"input": ["dog", "dog " * 40]}, "input[1]", "maximum context length is 32"),
        ({"input": "x", "truncate_prompt_tokens": 33}, "truncate_prompt_tokens", "between 1 and 32"),
        ({"input": "x", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "between 1 and 32"),
        ({"input": "x", "dimensions": 0}, "dimensions", "between 1 and 32"),
        ({"input": "x", "dimensions": 33}, "dimensions", "between 1 and 32"),
        ({"input": "x", "encoding_format": "bytes"}, "encoding_format", "bytes"),
        ({"input": "x", "additional_data": 1}, "additional_data", "Data beside the text is not supported yet"),
        ({"input": "x", "embed_dtype": "float16"}, "embed_dtype", "float16"),
        ({"input": "x", "endianness": "middle"}, "endianness", "middle"),
        ({"input": "x", "normalize": True, "use_activation": False}, "use_activation", "contradict"),
    ],
)
def test_a_bad_request_is_refused(embedder: RunningServer, body: dict[str, Any], param: str, said: str) -> None:
    error = error_of(embedder, "/v1/embeddings", **body)
    assert error["param"] == param
    assert said in error["message"]


def test_dimensions_of_a_model_that_was_not_trained_for_them_are_refused(decoder: RunningServer) -> None:
    with pytest.raises(openai.BadRequestError, match="matryoshka"):
        decoder.openai().embeddings.create(model="demo", input="x", dimensions=8)


def test_an_embedding_model_does_not_complete_or_classify(embedder: RunningServer) -> None:
    client = embedder.openai()
    with pytest.raises(openai.BadRequestError, match="/v1/embeddings"):
        client.completions.create(model="demo", prompt="x")
    with pytest.raises(openai.BadRequestError, match="/v1/embeddings"):
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "x"}])
    assert "ForSequenceClassification" in error_of(embedder, "/classify", input="x")["message"]
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="other", input="x")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "x"}),
        ("/pooling", {"input": "x"}),
        ("/score", {"text_1": "x", "text_2": "y"}),
        ("/v1/rerank", {"query": "x", "documents": ["y"]}),
    ],
)
def test_a_generating_server_says_which_flag_serves_embeddings(
    server: RunningServer, path: str, body: dict[str, Any]
) -> None:
    assert "--task embedding" in error_of(server, path, **body)["message"]


def test_scores_of_an_embedding_model_are_cosines(embedder: RunningServer, embedder_dir: Path) -> None:
    query = mean_vector(embedder_dir, QUERY)
    expected = [cosine(query, mean_vector(embedder_dir, text)) for text in DOCUMENTS]
    answer = post(embedder, "/v1/score", text_1=QUERY, text_2=DOCUMENTS)
    assert answer["object"] == "list"
    assert [item["index"] for item in answer["data"]] == [0, 1, 2, 3]
    assert {item["object"] for item in answer["data"]} == {"score"}
    assert [item["score"] for item in answer["data"]] == [[pytest.approx(score, abs=1e-5)] for score in expected]
    plain = post(embedder, "/score", text_1=[QUERY], text_2=DOCUMENTS)
    assert [item["score"] for item in plain["data"]] == pytest.approx(expected, abs=1e-5)
    (same,) = post(embedder, "/score", queries=QUERY, documents=QUERY)["data"]
    assert same["score"] == pytest.approx(1.0, abs=1e-5)


def pair_scores(directory: Path, pairs: list[tuple[str, str]], max_length: int = MAX_LENGTH) -> list[float]:
    """A cross-encoder's scores by transformers."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.backend_tokenizer.enable_truncation(max_length, strategy="longest_first")
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    scores = []
    for first, second in pairs:
        encoded = tokenizer.backend_tokenizer.encode(first, second)
        ids, types = torch.tensor([encoded.ids]), torch.tensor([encoded.type_ids])
        with torch.inference_mode():
            scores.append(float(model(input_ids=ids, token_type_ids=types).logits[0, 0].sigmoid()))
    return scores


def test_a_cross_encoder_scores_pairs(cross_encoder: RunningServer, cross_encoder_dir: Path) -> None:
    one_to_many = pair_scores(cross_encoder_dir, [(QUERY, text) for text in DOCUMENTS])
    answer = post(cross_encoder, "/score", text_1=QUERY, text_2=DOCUMENTS)
    assert answer["id"].startswith("score-")
    assert [item["score"] for item in answer["data"]] == pytest.approx(one_to_many, abs=1e-5)
    many_to_many = pair_scores(cross_encoder_dir, list(zip(TEXTS[:2], DOCUMENTS[:2], strict=True)))
    answer = post(cross_encoder, "/v1/score", text_1=TEXTS[:2], text_2=DOCUMENTS[:2], encoding_format="float")
    assert [item["score"] for item in answer["data"]] == [[pytest.approx(score, abs=1e-5)] for score in many_to_many]
    raw = post(cross_encoder, "/score", data_1=QUERY, data_2=DOCUMENTS, use_activation=False)["data"]
    assert [1 / (1 + np.exp(-item["score"])) for item in raw] == pytest.approx(one_to_many, abs=1e-5)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_documents_are_ranked(cross_encoder: RunningServer, cross_encoder_dir: Path, path: str) -> None:
    scores = pair_scores(cross_encoder_dir, [(QUERY, text) for text in DOCUMENTS])
    order = sorted(range(4), key=lambda index: -scores[index])
    answer = post(cross_encoder, path, query=QUERY, documents=[*DOCUMENTS[:3], {"text": DOCUMENTS[3]}])
    assert answer["id"].startswith("rerank-")
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"]
    assert [result["index"] for result in answer["results"]] == order
    for result in answer["results"]:
        assert result["document"] == {"text": DOCUMENTS[result["index"]]}
        assert result["relevance_score"] == pytest.approx(scores[result["index"]], abs=1e-5)
    best = post(cross_encoder, path, query=QUERY, documents=DOCUMENTS, top_n=2, return_documents=False)
    assert [result["index"] for result in best["results"]] == order[:2]
    assert all("document" not in result for result in best["results"])
    assert len(post(cross_encoder, path, query=QUERY, documents=DOCUMENTS, top_n=0)["results"]) == len(DOCUMENTS)


def test_a_pair_that_is_too_long_loses_tokens_of_its_longer_text(
    cross_encoder: RunningServer, cross_encoder_dir: Path
) -> None:
    long = "the lazy dog " * 60
    error = error_of(cross_encoder, "/score", text_1=QUERY, text_2=["dog", long])
    assert error["param"] == "text_2[1]"
    assert f"maximum context length is {MAX_LENGTH}" in error["message"]
    for pair in ((QUERY, long), (long, QUERY), (long, long)):
        (expected,) = pair_scores(cross_encoder_dir, [pair], max_length=41)
        answer = post(cross_encoder, "/score", text_1=pair[0], text_2=pair[1], truncate_prompt_tokens=41)
        assert answer["usage"]["prompt_tokens"] == 41
        assert answer["data"][0]["score"] == pytest.approx(expected, abs=1e-5)
    limits = {"max_tokens_per_query": 2, "max_tokens_per_doc": 5}
    short = post(cross_encoder, "/rerank", query="dog " * 9, documents=[long], **limits)
    assert short["usage"]["prompt_tokens"] == 2 + 5 + 3


@pytest.mark.parametrize(
    ("path", "body", "param", "said"),
    [
        ("/score", {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, "text_1", "got 2 and 3"),
        ("/score", {"text_1": ["a", "b"], "text_2": "a"}, "text_1", "got 2 and 1"),
        ("/v1/score", {"text_1": "a", "text_2": []}, "text_2", "empty"),
        ("/v1/score", {"text_1": "a"}, "text_1", "text_1 and text_2"),
        ("/rerank", {"query": "a", "documents": []}, "documents", "empty"),
        ("/rerank", {"query": "a", "documents": ["b"], "top_n": -1}, "top_n", "negative"),
        ("/rerank", {"query": "a"}, "documents", "required"),
        ("/rerank", {"query": "a", "documents": ["b"], "instruction": "x"}, "instruction", "not supported"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(
    cross_encoder: RunningServer, path: str, body: dict[str, Any], param: str, said: str
) -> None:
    error = error_of(cross_encoder, path, **body)
    assert error["param"] == param
    assert said in error["message"]


def test_classes_have_their_labels(classifier: RunningServer, classifier_dir: Path) -> None:
    texts = TEXTS[:3]
    answer = post(classifier, "/classify", input=texts)
    assert answer["id"].startswith("classify-")
    tokenizer = AutoTokenizer.from_pretrained(classifier_dir)
    model = AutoModelForSequenceClassification.from_pretrained(classifier_dir)
    for item, text in zip(answer["data"], texts, strict=True):
        with torch.inference_mode():
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            expected = model(input_ids=ids).logits[0].softmax(-1)
        assert item["probs"] == pytest.approx(expected.tolist(), abs=1e-5)
        assert item["label"] == ["good", "bad", "neither"][int(expected.argmax())]
        assert item["num_classes"] == 3
    assert [(item["index"], answer["object"]) for item in answer["data"]] == [(0, "list"), (1, "list"), (2, "list")]
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0
    said = {"messages": [{"role": "user", "content": texts[0]}], "chat_template": "{{ messages[0].content }}"}
    as_message = post(classifier, "/classify", **said, add_special_tokens=True)
    assert as_message["data"][0] == post(classifier, "/classify", input=texts[0])["data"][0]
    pooled = post(classifier, "/pooling", input=texts[0], task="classify")
    assert pooled["data"][0]["data"] == answer["data"][0]["probs"]


def test_several_classes_are_no_score(classifier: RunningServer) -> None:
    assert "/classify" in error_of(classifier, "/score", text_1="a", text_2="b")["message"]
    assert "--convert embed" in error_of(classifier, "/v1/embeddings", input="a")["message"]


def test_pooling_gives_raw_data(embedder: RunningServer) -> None:
    vector = post(embedder, "/v1/embeddings", input="dog")["data"][0]["embedding"]
    answer = post(embedder, "/pooling", input="dog")
    assert answer["id"].startswith("pool-")
    assert answer["data"] == [{"index": 0, "object": "pooling", "data": vector}]
    tokens = post(embedder, "/pooling", input="dog", task="token_embed")
    assert len(tokens["data"][0]["data"]) == tokens["usage"]["prompt_tokens"]
    text = post(embedder, "/pooling", input="dog", encoding_format="base64")["data"][0]["data"]
    assert np.frombuffer(base64.b64decode(text), "<f4").tolist() == vector
    assert "token_classify" in error_of(embedder, "/pooling", input="dog", task="token_classify")["message"]


def test_a_language_model_embeds_and_generates(decoder: RunningServer, decoder_dir: Path) -> None:
    client = decoder.openai()
    ids = post(decoder, "/tokenize", prompt=TEXTS[0])["tokens"]
    with torch.inference_mode():
        state = AutoModel.from_pretrained(decoder_dir)(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    vector = client.embeddings.create(model="demo", input=TEXTS[0]).data[0].embedding
    np.testing.assert_allclose(vector, normalize(state, dim=-1), atol=1e-5)
    assert client.completions.create(model="demo", prompt=TEXTS[0], max_tokens=3).usage.completion_tokens <= 3  # type: ignore[union-attr]
    (score,) = post(decoder, "/v1/score", text_1=TEXTS[0], text_2=TEXTS[0])["data"]
    assert score["score"] == pytest.approx(1.0, abs=1e-5)


def test_invocations_of_a_model_that_pools_alone(embedder: RunningServer) -> None:
    """It goes where the body's fields say, and its description has what the model answers."""
    for path, body in (
        ("/v1/embeddings", {"input": QUERY}),
        ("/rerank", {"query": QUERY, "documents": DOCUMENTS}),
        ("/score", {"text_1": QUERY, "text_2": DOCUMENTS}),
        ("/score", {"queries": QUERY, "items": DOCUMENTS}),
    ):
        direct, invoked = (post(embedder, asked, **body) for asked in (path, "/invocations"))
        results = "results" if path == "/rerank" else "data"
        assert invoked[results] == direct[results]
    for body, said in (
        ({}, "none of messages, input, query and documents, text_1 and text_2, queries and documents, "),
        ({"prompt": "x"}, "Ask POST /v1/embeddings"),
        ({"text_1": "x"}, "text_1 and text_2"),
        ({"input": "x", "query": "y", "documents": ["z"]}, "input is for /v1/embeddings, query and documents for /rer"),
        ({"input": []}, "input must not be empty"),
        ({"input": "x", "messages": []}, "either input or messages"),
    ):
        assert said in error_of(embedder, "/invocations", **body)["message"]
    paths = httpx.get(f"{embedder.url}/openapi.json", headers=embedder.headers, timeout=60).json()["paths"]
    described = paths["/invocations"]["post"]
    content = described["requestBody"]["content"]["application/json"]
    names = {choice["$ref"].rpartition("/")[2] for choice in content["schema"]["anyOf"]}
    assert names == {"EmbeddingRequest", "RerankRequest", "ScoreRequest"}
    assert list(described["responses"]["200"]["content"]) == ["application/json"]
    assert post(embedder, "/invocations", **content["example"])["data"]
    not_served = {path for path, of in paths.items() if of.get("post", {}).get("tags") == ["Not served"]}
    assert {"/v1/completions", "/v1/chat/completions", "/v1/messages", "/generate", "/classify"} <= not_served
    assert not_served.isdisjoint({"/v1/embeddings", "/score", "/v2/rerank", "/pooling", "/invocations"})


def test_a_conversation_is_one_text(decoder: RunningServer) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    text = "<|im_start|>user\nHi<|im_end|>\n"
    expected = post(decoder, "/v1/embeddings", input=text, add_special_tokens=False)
    answer = post(decoder, "/v1/embeddings", messages=messages)
    assert answer["data"] == expected["data"]
    open_ended = post(decoder, "/v1/embeddings", messages=messages, add_generation_prompt=True)
    assert open_ended["usage"]["prompt_tokens"] > answer["usage"]["prompt_tokens"]
    assert error_of(decoder, "/v1/embeddings", messages=[])["param"] == "messages"
    own = {"chat_template": "{{ messages[0].content }}{{ end }}", "chat_template_kwargs": {"end": "!"}}
    templated = post(decoder, "/v1/embeddings", messages=messages, **own)
    assert templated["data"] == post(decoder, "/v1/embeddings", input="Hi!", add_special_tokens=False)["data"]


def test_a_client_that_leaves_takes_its_texts_along(decoder: RunningServer) -> None:
    body = json.dumps({"input": ["the lazy dog jumps over the fox " * 20] * 3000})
    connection = http.client.HTTPConnection(decoder.url.removeprefix("http://"))
    connection.request("POST", "/v1/embeddings", body, decoder.headers)
    wait_until(lambda: NONE_WAITS not in _metrics(decoder))
    connection.close()
    wait_until(lambda: "finished=aborted" in decoder.log.read_text())
    wait_until(lambda: NONE_WAITS in _metrics(decoder))


def _metrics(running: RunningServer) -> str:
    return httpx.get(running.url + "/metrics", headers=running.headers, timeout=60).text


def test_metrics_and_the_log_count_texts(classifier: RunningServer) -> None:
    def finished() -> float:
        text = httpx.get(classifier.url + "/metrics", headers=classifier.headers, timeout=60).text
        name = 'vllm:request_success_total{finished_reason="stop",model_name="demo"}'
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    before = finished()
    post(classifier, "/classify", input=["a", "b"], request_id="seen")
    assert finished() == before + 2
    wait_until(lambda: "classify-seen" in classifier.log.read_text())  # written behind the answer
    (line,) = [line for line in classifier.log.read_text().splitlines() if "classify-seen" in line]
    assert "texts=2" in line
    assert "finished=stop" in line

"""A server on another model: weights in float32, a token in front of every text, no chat template. Its flags are those
that the other servers of the tests do not have; `--logprobs-mode processed` shows what each field does to the numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Any

import httpx
import openai
import pytest

from tests.faults.processes import metric, wait_until
from tests.running_server import RunningServer, start_server
from tests.sdk_types import read_error, read_model
from tests.server import tiny_tokenizers
from tests.tiny_poolers import save_decoder

from .test_http_completions import post

NAME = "of/two words/and-slashes"
BEGIN, END = 1, 2
IMPOSSIBLE = -9999.0
PROMPT = [20, 21, 22, 21]
FLAGS = (
    *("--served-model-name", NAME, "--max-num-seqs", "4", "--kv-cache-memory", "16M", "--dtype", "auto"),
    *("--logprobs-mode", "processed", "--max-logprobs", "-1", "--return-tokens-as-token-ids"),
    *("--allowed-origins", '["*"]', "--disable-fastapi-docs", "--dev-endpoints", "--enable-request-id-headers"),
    *("--scheduling-policy", "priority", "--grammar-memory", "8M"),
)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    config = {"vocab_size": 512, "eos_token_id": END, "max_position_embeddings": 4096}
    directory = save_decoder("Llama", tmp_path_factory.mktemp("model"), **config)
    tiny_tokenizers.sentencepiece(directory)
    running = start_server(tmp_path_factory.mktemp("other") / "log", *FLAGS, "--model", str(directory))
    yield running
    running.stop()


def chosen(server: RunningServer, **fields: Any) -> list[dict[int, float]]:
    """For each token of an answer, what any token's logprob was when it was drawn."""
    body = {"prompt": PROMPT, "max_tokens": 1, "logprobs": -1, "ignore_eos": True, "seed": 1, **fields}
    (choice,) = post(server, **body)["choices"]
    return [
        {int(name.removeprefix("token_id:")): logprob for name, logprob in position.items()}
        for position in choice["logprobs"]["top_logprobs"]
    ]


def shifts(before: dict[int, float], after: dict[int, float], token_id: int) -> list[float]:
    """By how much a token has come up against each other one, in order."""
    against = set(before) - {token_id}
    return sorted((after[token_id] - after[other]) - (before[token_id] - before[other]) for other in against)


def test_float32_weights_stay_float32_and_the_log_says_so(other: RunningServer) -> None:
    info = httpx.get(f"{other.url}/server_info", headers=other.headers, timeout=60).json()
    assert info["engine"]["dtype"] == "float32"
    assert "(LlamaForCausalLM, float32)" in other.log.read_text()


def test_a_name_may_hold_slashes_and_spaces(other: RunningServer) -> None:
    card = httpx.get(f"{other.url}/v1/models/{NAME}", headers=other.headers, timeout=60)
    assert read_model(card.json()).id == NAME
    assert other.openai().completions.create(model=NAME, prompt="The", max_tokens=1).choices


def test_every_origin_gets_permission(other: RunningServer) -> None:
    answer = httpx.get(f"{other.url}/version", headers={"origin": "https://anybody.example"}, timeout=60)
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/openapi.json"])
def test_pages_can_be_left_out(other: RunningServer, path: str) -> None:
    response = httpx.get(f"{other.url}{path}", headers=other.headers, timeout=60)
    assert response.status_code == 404
    assert read_error(response).type == "NotFoundError"


@pytest.mark.parametrize("path", ["/sleep", "/wake_up", "/collective_rpc", "/is_sleeping"])
def test_other_development_endpoints_are_absent_even_with_their_flag(other: RunningServer, path: str) -> None:
    for method in ("GET", "POST"):
        response = httpx.request(method, f"{other.url}{path}", headers=other.headers, timeout=60)
        assert response.status_code == 404
        assert f"There is no {path} here" in read_error(response).message


def test_the_flag_of_request_ids_is_told_to_have_no_effect(other: RunningServer) -> None:
    assert other.log.read_text().count("--enable-request-id-headers has no effect") == 1


def test_without_a_chat_template_the_error_says_what_to_do(other: RunningServer) -> None:
    messages: Any = [{"role": "user", "content": "The"}]
    client = other.openai()
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=NAME, messages=messages)
    assert (refused.value.type, refused.value.param) == ("BadRequestError", "messages")
    for way in ("--chat-template", "chat_template", "/v1/completions"):
        assert way in refused.value.message
    template = {"chat_template": "{{ messages[0].content }}"}
    answer = client.chat.completions.create(model=NAME, messages=messages, max_tokens=1, extra_body=template)
    assert answer.usage is not None


def test_special_tokens_stand_in_front_of_texts_but_not_of_conversations(other: RunningServer) -> None:
    def prompt(path: str, **fields: Any) -> list[int]:
        body = {"max_tokens": 1, "return_token_ids": True, **fields}
        answer = httpx.post(other.url + path, json=body, headers=other.headers, timeout=60).json()
        return answer["prompt_token_ids"] if "chat" in path else answer["choices"][0]["prompt_token_ids"]

    text = "The quick brown fox"
    begun = prompt("/v1/completions", prompt=text)
    bare = prompt("/v1/completions", prompt=text, add_special_tokens=False)
    assert begun == [BEGIN, *bare]
    chat = {"messages": [{"role": "user", "content": text}], "chat_template": "{{ messages[0].content }}"}
    assert prompt("/v1/chat/completions", **chat) == bare
    assert prompt("/v1/chat/completions", add_special_tokens=True, **chat) == begun
    for path, fields in (("/v1/completions", {"prompt": text}), ("/v1/chat/completions", chat)):
        fields = {"add_special_tokens": True, "truncate_prompt_tokens": 3, **fields}
        assert prompt(path, **fields) == [BEGIN, *bare[-2:]]
        assert prompt(path, truncation_side="right", **fields) == [BEGIN, *bare[:2]]


def test_a_text_may_be_cut_to_the_context(other: RunningServer) -> None:
    limit = httpx.get(f"{other.url}/v1/models/{NAME}", headers=other.headers, timeout=60).json()["max_model_len"]
    answer = post(other, prompt="fox " * 9000, truncate_prompt_tokens=-1)
    assert answer["usage"]["total_tokens"] == limit


def test_the_whole_vocabulary_is_told_where_the_flag_allows_it(other: RunningServer) -> None:
    (position,) = chosen(other)
    assert len(position) == 512
    (choice,) = post(other, prompt=PROMPT, max_tokens=1, prompt_logprobs=-1)["choices"]
    assert [None if each is None else len(each) for each in choice["prompt_logprobs"]] == [None, 512, 512, 512]
    answer = other.openai().chat.completions.create(
        model=NAME,
        messages=[{"role": "user", "content": "The"}],
        logprobs=True,
        top_logprobs=-1,
        max_tokens=1,
        extra_body={"chat_template": "{{ messages[0].content }}"},
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content[0].top_logprobs) == 512
    assert logprobs.content[0].token.startswith("token_id:")


@pytest.mark.parametrize(("bias", "shift"), [(3, 3), (-2.5, -2.5), (100, 100), (1e6, 100), (-1e6, -100)])
def test_a_bias_is_added_and_cut_to_100(other: RunningServer, bias: float, shift: float) -> None:
    (plain,), (biased,) = chosen(other), chosen(other, logit_bias={"9": bias})
    assert shifts(plain, biased, 9) == pytest.approx([shift] * 511, abs=1e-3)


def test_presence_and_frequency_are_of_the_output_alone(other: RunningServer) -> None:
    forced = {"max_tokens": 3, "logit_bias": {"21": 100}}  # which the prompt has too
    plain = chosen(other, **forced)
    present, frequent = chosen(other, presence_penalty=1.5, **forced), chosen(other, frequency_penalty=-0.5, **forced)
    for number in range(3):
        assert shifts(plain[number], present[number], 21) == pytest.approx([-1.5 * (number > 0)] * 511, abs=1e-3)
        assert shifts(plain[number], frequent[number], 21) == pytest.approx([0.5 * number] * 511, abs=1e-3)


def test_repetition_is_of_prompt_and_output(other: RunningServer) -> None:
    forced = {"max_tokens": 2, "logit_bias": {"30": 100}}
    plain, penalised = chosen(other, **forced), chosen(other, repetition_penalty=1.7, **forced)
    for number, repeated in enumerate(({20, 21, 22}, {20, 21, 22, 30})):
        falls = {token_id: penalised[number][token_id] - plain[number][token_id] for token_id in range(512)}
        of_others = sorted(falls.pop(token_id) for token_id in set(falls) - repeated)
        assert of_others[0] == pytest.approx(of_others[-1], abs=1e-3)
        assert all(fall < of_others[0] - 1e-3 for fall in falls.values())


def test_temperature_stretches_and_the_limits_cut(other: RunningServer) -> None:
    (plain,) = chosen(other)
    (cold,) = chosen(other, temperature=0.5)
    stretched = [2 * (plain[n] - plain[9]) for n in range(512)]
    assert [cold[n] - cold[9] for n in range(512)] == pytest.approx(stretched, abs=1e-3)
    falling = sorted(plain, key=lambda token_id: -plain[token_id])
    masses = list(accumulate(math.exp(plain[token_id]) for token_id in falling))
    kept = {
        "top_k": (3, falling[:3]),
        "top_p": (0.4, falling[: sum(mass < 0.4 for mass in masses) + 1]),
        "min_p": (0.5, [n for n in falling if plain[n] >= plain[falling[0]] - math.log(2)]),
        "allowed_token_ids": ([9, 30], [9, 30]),
    }
    for field, (value, expected) in kept.items():
        (position,) = chosen(other, **{field: value})
        assert {n for n in position if position[n] > IMPOSSIBLE} == set(expected), field


def test_before_min_tokens_ends_are_impossible_whatever_their_bias(other: RunningServer) -> None:
    ends = {"stop_token_ids": [9], "logit_bias": {"9": 100, str(END): 100}, "ignore_eos": False}
    positions = chosen(other, max_tokens=4, min_tokens=2, **ends)
    assert [[position[9], position[END]] for position in positions[:2]] == [[IMPOSSIBLE] * 2] * 2
    assert len(positions) == 3
    assert max(positions[2][9], positions[2][END]) > -1


def test_a_search_reports_what_it_ranked_by(other: RunningServer) -> None:
    fields = {"use_beam_search": True, "n": 3, "max_tokens": 3, "seed": None}
    body = {"prompt": PROMPT, "logprobs": -1, "ignore_eos": True, **fields}
    plain, biased = (post(other, logit_bias=bias, **body)["choices"] for bias in (None, {"9": 4.0}))
    first = {}
    for name, choices in (("plain", plain), ("biased", biased)):
        sums = [sum(choice["logprobs"]["token_logprobs"]) for choice in choices]
        assert sums == sorted(sums, reverse=True)
        first[name] = choices[0]["logprobs"]["top_logprobs"][0]
    raised = {token: first["biased"][token] - logprob for token, logprob in first["plain"].items()}
    assert raised.pop("token_id:9") == pytest.approx(4.0, abs=1e-4)
    assert list(raised.values()) == pytest.approx([0.0] * 511, abs=1e-4)


def test_the_more_important_of_two_that_wait_is_served_first(other: RunningServer) -> None:
    order: list[str] = []
    body = {"prompt": PROMPT, "n": 4, "ignore_eos": True}

    def ask(name: str, priority: int) -> None:
        fields = {**body, "max_tokens": 60, "priority": priority}
        httpx.post(f"{other.url}/v1/completions", json=fields, headers=other.headers, timeout=60).raise_for_status()
        order.append(name)

    # The one that takes all places is left once both wait, long before its end.
    endless = {**body, "max_tokens": 4000, "stream": True}
    with ThreadPoolExecutor() as pool:
        with httpx.stream(
            "POST", f"{other.url}/v1/completions", json=endless, headers=other.headers, timeout=60
        ) as response:
            lines = response.iter_lines()
            next(lines)
            waiting = [pool.submit(ask, "unimportant", 9)]
            wait_until(lambda: metric(other, "num_requests_waiting") >= 4)
            waiting.append(pool.submit(ask, "important", 5))
            wait_until(lambda: metric(other, "num_requests_waiting") >= 8)
        for each in waiting:
            each.result()
    assert order == ["important", "unimportant"]


def test_a_constraint_that_takes_too_much_memory_is_refused(other: RunningServer) -> None:
    texts = [f"{number * 7919 % 1_000_003:x}" for number in range(80_000)]
    body = {"prompt": PROMPT, "guided_choice": texts}
    response = httpx.post(f"{other.url}/v1/completions", content=json.dumps(body), headers=other.headers, timeout=60)
    assert response.status_code == 400
    error = read_error(response)
    assert (error.type, error.param) == ("BadRequestError", "guided_choice")
    assert "8 MiB" in error.message
    assert post(other, prompt=PROMPT, guided_choice=["fox"])["choices"][0]["text"] == "fox"

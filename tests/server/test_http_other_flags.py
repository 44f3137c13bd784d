"""Flags of the command line that go against those of `test_http_flags.py`, or need a server of another kind: one small
server, on an address of its own, has them all.
"""

from __future__ import annotations

import concurrent.futures
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.processes import wait_until
from tests.running_server import DEMO_MODEL, RunningServer, start_server

ADDRESS = "127.0.0.2"
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{{ m.content if m.content is string else m.content[0].text ~ '!' }};"
    "{% endfor %}{% if tools %}[TOOL_CALLS]{% endif %}"
)
"""Not looking at parts one by one, it would see plain strings, and it teaches Mistral's tool calls."""
FLAGS = (
    *("--host", ADDRESS, "--max-num-seqs", "1", "--max-num-batched-tokens", "64", "--dtype", "float32"),
    *("--block-size", "32", "--num-gpu-blocks-override", "20", "--no-enable-prefix-caching"),
    *("--max-num-queued-tokens", "400", "--max-logprobs", "-1", "--enable-prompt-tokens-details", "--dev-endpoints"),
    *("--allowed-origins", '["*"]', "--allowed-methods", '["GET", "POST"]', "--allowed-headers", "x-one", "x-two"),
    *("--allow-credentials", "--disable-fastapi-docs", "--disable-log-requests", "--chat-template-content-format"),
    *("openai", "--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
)
NUM_CACHED_TOKENS = 20 * 32
COMMITS = {"weights": "0" * 40, "tokenizer": "1" * 40}
"""Of the revisions of a model in a cache, neither of which is whole."""
QUESTION = [{"role": "user", "content": "What time is it?"}]
NOW: Any = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def flagged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("other_flags")
    (folder / "template.jinja").write_text(TEMPLATE)
    (folder / "generation_config.json").write_text('{"top_k": 1}')
    _fill_cache(folder / "cache")
    model = ("--model", "acme/demo", "--revision", "weights", "--download-dir", str(folder / "cache"))
    files = ("--chat-template", str(folder / "template.jinja"), "--generation-config", str(folder))
    tokenizer = ("--tokenizer", "acme/demo", "--tokenizer-revision", "tokenizer")
    server = start_server(folder / "log", *FLAGS, *files, *model, *tokenizer, wait=False)
    server.url = server.url.replace("127.0.0.1", ADDRESS)
    server.wait_until_healthy()
    yield server
    assert server.stop() == 0


def _fill_cache(cache: Path) -> None:
    """Put the demo model into a Hugging Face cache, its tokenizer into a revision of its own."""
    repository = cache / "models--acme--demo"
    (repository / "refs").mkdir(parents=True)
    for revision, commit in COMMITS.items():
        (repository / "refs" / revision).write_text(commit)
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for file in DEMO_MODEL.iterdir():
            if file.name.startswith("tokenizer") == (revision == "tokenizer"):
                (snapshot / file.name).symlink_to(file.resolve())


def post(server: RunningServer, path: str, **body: Any) -> httpx.Response:
    return httpx.post(server.url + path, json=body, headers=server.headers, timeout=60)


def complete(server: RunningServer, **body: Any) -> Any:
    response = post(server, "/v1/completions", **{"prompt": "The capital of France is", **body})
    assert response.status_code == 200, response.text
    return response.json()


def test_model_and_tokenizer_come_from_their_revisions_in_the_cache(flagged: RunningServer) -> None:
    assert complete(flagged, max_tokens=1)["choices"][0]["text"] == " Paris"
    info = httpx.get(f"{flagged.url}/server_info", headers=flagged.headers, timeout=60).json()
    assert (info["config"]["model"], info["config"]["tokenizer_revision"]) == ("acme/demo", "tokenizer")


def test_it_listens_on_the_named_address_alone(flagged: RunningServer) -> None:
    assert httpx.get(f"{flagged.url}/health", timeout=60).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{flagged.url.replace(ADDRESS, '127.0.0.1')}/health", timeout=60)


def test_every_origin_may_send_the_named_methods_and_headers(flagged: RunningServer) -> None:
    def preflight(method: str, header: str) -> httpx.Response:
        headers = {
            "origin": "https://anywhere.example",
            "access-control-request-method": method,
            "access-control-request-headers": header,
        }
        return httpx.options(f"{flagged.url}/v1/completions", headers=headers, timeout=60)

    allowed = preflight("POST", "x-two")
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://anywhere.example"
    assert allowed.headers["access-control-allow-credentials"] == "true"
    assert set(allowed.headers["access-control-allow-methods"].split(", ")) == {"GET", "POST"}
    assert {"x-one", "x-two"} <= set(allowed.headers["access-control-allow-headers"].split(", "))
    assert preflight("DELETE", "x-two").status_code == 400
    assert preflight("POST", "x-three").status_code == 400


def test_the_pages_of_documentation_are_left_out(flagged: RunningServer) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert httpx.get(flagged.url + path, headers=flagged.headers, timeout=60).status_code == 404, path


def test_finished_requests_are_not_logged(flagged: RunningServer) -> None:
    complete(flagged, request_id="unlogged", max_tokens=1)
    assert httpx.get(f"{flagged.url}/health", timeout=60).status_code == 200
    log = flagged.log.read_text()
    assert "INFO" in log
    assert "unlogged" not in log


def test_the_type_of_the_weights_is_the_one_of_the_flag_and_told(flagged: RunningServer) -> None:
    info = httpx.get(f"{flagged.url}/server_info", headers=flagged.headers, timeout=60).json()
    assert info["config"]["dtype"] == "float32"
    assert re.search(r"Loading .*float32", flagged.log.read_text())


def test_a_context_that_the_cache_does_not_hold_is_lowered_and_told(flagged: RunningServer) -> None:
    card = httpx.get(f"{flagged.url}/v1/models/demo", headers=flagged.headers, timeout=60).json()
    assert card["max_model_len"] == NUM_CACHED_TOKENS
    assert f"max_model_len is lowered from 2048 to {NUM_CACHED_TOKENS}" in flagged.log.read_text()
    assert "20 blocks of 32 tokens" in flagged.log.read_text()


def test_no_prefix_is_found_again(flagged: RunningServer) -> None:
    for _ in range(2):
        usage = complete(flagged, prompt=list(range(5, 155)), max_tokens=1)["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == 0


def test_a_step_computes_no_more_tokens_than_it_may(flagged: RunningServer) -> None:
    before = [_metric(flagged, f"iteration_tokens_total_{what}") for what in ("count", "sum")]
    complete(flagged, prompt=list(range(5, 155)), max_tokens=1)
    after = [_metric(flagged, f"iteration_tokens_total_{what}") for what in ("count", "sum")]
    assert [new - old for new, old in zip(after, before, strict=True)] == [3, 150]  # in steps of 64


def test_the_whole_vocabulary_is_told_where_any_number_may_be_asked_for(flagged: RunningServer) -> None:
    vocabulary = len(complete(flagged, max_tokens=1, logprobs=-1)["choices"][0]["logprobs"]["top_logprobs"][0])
    assert vocabulary > 1000
    asked = complete(flagged, max_tokens=1, logprobs=50)["choices"][0]["logprobs"]["top_logprobs"][0]
    assert len(asked) in (50, 51)


def test_defaults_are_those_of_the_folder(flagged: RunningServer) -> None:
    likeliest = complete(flagged, temperature=0, ignore_eos=True)["choices"]
    assert complete(flagged, temperature=2, ignore_eos=True)["choices"] == likeliest  # of one token to draw from
    drawn = [complete(flagged, temperature=2, top_k=0, ignore_eos=True)["choices"] for _ in range(2)]
    assert drawn != [likeliest] * 2


def test_options_of_the_structured_outputs_hold_where_a_request_says_nothing(flagged: RunningServer) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x"]}, "b": {"enum": ["y"]}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    drawn = {"temperature": 2, "top_k": 0, "max_tokens": 40}
    answers = [complete(flagged, guided_json=schema, seed=seed, **drawn) for seed in range(8)]
    assert {answer["choices"][0]["text"] for answer in answers} == {'{"a":"x","b":"y"}'}
    own = {"guided_decoding_backend": "auto", **drawn}
    spaced = [complete(flagged, guided_json=schema, seed=seed, **own) for seed in range(8)]
    assert any(" " in answer["choices"][0]["text"] for answer in spaced)


def test_the_template_of_a_path_sees_content_as_parts(flagged: RunningServer) -> None:
    answer = post(flagged, "/v1/chat/completions", messages=QUESTION, max_tokens=1, return_prompt_text=True).json()
    assert answer["prompt_text"] == "user:What time is it?!;"


def test_calls_are_read_and_numbered_as_the_template_shows_and_demands_them(flagged: RunningServer) -> None:
    """No flag names the format; Mistral's templates take ids of nine letters and digits alone."""
    body: dict[str, Any] = {"model": "demo", "messages": QUESTION, "tools": [NOW], "max_tokens": 40}
    client = flagged.openai()
    call = r'\[TOOL_CALLS\] \[\{"name": "now", "arguments": \{\}\}\]'
    decided = client.chat.completions.create(**body, extra_body={"guided_regex": call}).choices[0]
    named = client.chat.completions.create(**body, tool_choice=NOW).choices[0]
    assert (decided.finish_reason, named.finish_reason) == ("tool_calls", "stop")
    for choice in (decided, named):
        (made,) = choice.message.tool_calls
        assert (made.function.name, made.function.arguments) == ("now", "{}")
        assert re.fullmatch("[A-Za-z0-9]{9}", made.id)
    assert not decided.message.content


def test_prompts_beyond_the_tokens_that_may_wait_are_sent_away(flagged: RunningServer) -> None:
    body = {"prompt": [7] * 100, "max_tokens": 1}
    long = {"prompt": "Hello", "max_tokens": 600, "n": 40, "ignore_eos": True, "stream": True}
    with (
        concurrent.futures.ThreadPoolExecutor() as pool,
        httpx.stream(
            "POST", f"{flagged.url}/v1/completions", json=long, headers=flagged.headers, timeout=60
        ) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        wait_until(lambda: _metric(flagged, "num_requests_running") == 1)  # of 40 answers
        load = _load(flagged)
        waiting = pool.submit(complete, flagged, **body, n=3)
        while _load(flagged) <= load:
            assert not waiting.done()
        refused = post(flagged, "/v1/completions", **body, n=2)
        response.close()
        assert len(waiting.result()["choices"]) == 3
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    error = refused.json()["error"]
    assert (error["type"], error["param"]) == ("ServiceUnavailableError", None)
    assert error["message"] == "The queue is full: prompts of 300 tokens wait already, and 400 may."
    assert len(complete(flagged, **body, n=6)["choices"]) == 6  # what waits alone may be longer


def _load(server: RunningServer) -> int:
    """How many answers the server has to give."""
    return httpx.get(f"{server.url}/load", headers=server.headers, timeout=60).json()["server_load"]


def _metric(server: RunningServer, name: str) -> float:
    text = httpx.get(f"{server.url}/metrics", headers=server.headers, timeout=60).text
    (value,) = re.findall(rf'^vllm:{name}{{model_name="demo"}} (\S+)$', text, re.MULTILINE)
    return float(value)

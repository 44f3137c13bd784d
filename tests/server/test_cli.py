"""The command line: what a user may write, and what is said to one who errs."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from zqserve.engine_core.config import EngineConfig
from zqserve.server.command_line.cli import ServeCommand, Shown, UsageError, main, parse
from zqserve.server.command_line.flag_compatibility import FOREIGN_FLAGS
from zqserve.server.config import ServerConfig
from zqserve.server.http.custom_middleware import load_middleware


def command(*argv: str) -> ServeCommand:
    parsed = parse(argv)
    assert isinstance(parsed, ServeCommand)
    return parsed


def configuration(*argv: str) -> ServerConfig:
    parsed = command(*argv)
    assert parsed.notices == ()
    return parsed.config


def shown_help(word: str) -> str:
    parsed = parse([f"--help={word}"])
    assert isinstance(parsed, Shown)
    return parsed.text


def refusal(*argv: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(argv)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _no_keys_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZQSERVE_API_KEY", raising=False)
    monkeypatch.delenv("VLLM_API_KEY", raising=False)


@pytest.mark.parametrize("argv", [["m"], ["serve", "m"], ["--model", "m"], ["serve", "--model=m"]])
def test_model_is_given_as_word_or_flag(argv: list[str]) -> None:
    assert configuration(*argv) == ServerConfig(model="m")


@pytest.mark.parametrize(
    "argv",
    [["--max-num-seqs", "7"], ["--max_num_seqs", "7"], ["--max-num-seqs=7"], ["--max_num_seqs=7"]],
)
def test_flags_are_spelt_with_dashes_or_underscores_and_with_equals_sign(argv: list[str]) -> None:
    assert configuration("m", *argv).max_num_seqs == 7


@pytest.mark.parametrize(
    ("text", "length"),
    [("8192", 8192), ("8k", 8000), ("8K", 8192), ("1M", 2**20), ("1.5k", 1500), ("auto", None), ("-1", None)],
)
def test_max_model_len_takes_human_sizes(text: str, length: int | None) -> None:
    assert configuration("m", "--max-model-len", text).max_model_len == length
    assert configuration("m", f"--max-model-len={text}").max_model_len == length


@pytest.mark.parametrize("flag", ["--kv-cache-memory", "--kv-cache-memory-bytes", "--kv_cache_memory_bytes"])
def test_cache_memory_takes_human_sizes_under_both_names(flag: str) -> None:
    assert configuration("m", flag, "4G").kv_cache_memory == 4 * 2**30


@pytest.mark.parametrize(
    "argv", [["--api-key", "a", "b"], ["--api-key", "a", "--api-key", "b"], ["--api-key", '["a", "b"]']]
)
def test_several_keys_are_given_in_one_flag_or_in_several(argv: list[str]) -> None:
    assert configuration("m", *argv).api_key == ("a", "b")


@pytest.mark.parametrize(
    ("flag", "field", "value"),
    [
        ("--no-enable-prefix-caching", "enable_prefix_caching", False),
        ("--enable-prefix-caching", "enable_prefix_caching", True),
        ("--disable-log-requests", "log_requests", False),
        ("--enable-log-requests", "log_requests", True),
        ("--no-trust-request-chat-template", "trust_request_chat_template", False),
    ],
)
def test_booleans_are_switched_on_and_off(flag: str, field: str, value: bool) -> None:
    assert getattr(configuration("m", flag), field) is value


@pytest.mark.parametrize("argv", [["--quantization", "int8"], ["--quantization=int8"], ["-q", "int8"]])
def test_weights_are_rounded_on_demand(argv: list[str]) -> None:
    assert configuration("m", *argv).quantization == "int8"
    assert configuration("m", "--quantization", "none") == configuration("m")


def test_defaults_are_those_that_users_know() -> None:
    config = configuration("m")
    assert (config.host, config.port, config.api_key) == ("0.0.0.0", 8000, ())
    assert (config.dtype, config.max_model_len, config.load_format, config.task) == ("auto", None, "auto", "auto")
    assert (config.block_size, config.gpu_memory_utilization, config.seed) == (16, 0.92, 0)
    assert (config.enable_prefix_caching, config.scheduling_policy, config.generation_config) == (True, "fcfs", "auto")
    assert (config.max_queued_requests, config.max_queued_tokens) == (1024, 4 * 2**20)
    assert (config.max_logprobs, config.logprobs_mode, config.response_role) == (20, "raw", "assistant")
    assert (config.stream_interval, config.sse_keep_alive_interval, config.allowed_origins) == (1, 0, ())
    assert (config.log_requests, config.log_prompts, config.access_log) == (True, False, False)


@pytest.mark.parametrize(
    ("argv", "field", "value"),
    [
        (["--shutdown-timeout", "7"], "drain_timeout", 7),
        (["--max-num-queued-reqs", "7"], "max_queued_requests", 7),
        (["--max-num-queued-tokens", "8k"], "max_queued_tokens", 8000),
        (["--max-num-batched-tokens", "4K"], "max_num_batched_tokens", 4096),
        (["--max-num-batched-tokens", "auto"], "max_num_batched_tokens", None),
        (["--logprobs-mode", "processed_logprobs"], "logprobs_mode", "processed_logprobs"),
        (["--allowed-origins", "https://a.example", "null"], "allowed_origins", ("https://a.example", "null")),
        (["--allowed-headers", '["x-one", "x-two"]'], "allowed_headers", ("x-one", "x-two")),
        (["--middleware", "a.B", "c.d"], "middleware", ("a.B", "c.d")),
    ],
)
def test_a_flag_fills_its_field(argv: list[str], field: str, value: object) -> None:
    assert getattr(configuration("m", *argv), field) == value


def test_log_level_is_that_of_uvicorn_too() -> None:
    assert configuration("m", "--uvicorn-log-level", "trace").log_level == "debug"
    assert configuration("m", "--log-level=critical").log_level == "critical"


def test_endpoints_without_access_log_are_given_with_commas() -> None:
    config = configuration("m", "--disable-access-log-for-endpoints", "/health, /metrics", "--access-log")
    assert config.disable_access_log_for_endpoints == ("/health", "/metrics")
    assert not configuration("m", "--access-log", "--disable-uvicorn-access-log").access_log


def test_last_of_repeated_flags_wins() -> None:
    assert configuration("m", "--port", "1", "--port", "2").port == 2


def test_json_object_overrides_generation_config() -> None:
    config = configuration("m", "--override-generation-config", '{"temperature": 0.5}')
    assert config.override_generation_config == {"temperature": 0.5}


@pytest.mark.parametrize("name", ["ZQSERVE_API_KEY", "VLLM_API_KEY"])
def test_key_comes_from_environment_unless_flag_is_given(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "from-environment")
    assert configuration("m").api_key == ("from-environment",)
    assert configuration("m", "--api-key", "from-flag").api_key == ("from-flag",)


CONFIG_FILE = """
model: from-file
port: 1234
api_key: [one, two]
max-model-len: 8k
enable-prefix-caching: false
disable-log-requests: true
override-generation-config: {temperature: 0.3, top_p: 0.9}
served-model-name: alias
"""


def test_command_line_wins_over_environment_over_file_over_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG_FILE)
    config = configuration("--config", str(path))
    assert config == ServerConfig(
        model="from-file",
        port=1234,
        api_key=("one", "two"),
        max_model_len=8000,
        enable_prefix_caching=False,
        log_requests=False,
        override_generation_config={"temperature": 0.3, "top_p": 0.9},
        served_model_name=("alias",),
        config=path,
    )
    monkeypatch.setenv("ZQSERVE_API_KEY", "from-environment")
    config = configuration("from-flag", f"--config={path}", "--port", "77", "--enable-prefix-caching")
    assert (config.model, config.port, config.enable_prefix_caching) == ("from-flag", 77, True)
    assert config.api_key == ("from-environment",)
    assert config.max_model_len == 8000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot: 3", "Did you mean --port?"),
        ("quantization: awq", "int8"),
        ("- port", "must be a mapping"),
        ("port: [", "cannot read the configuration file"),
        ("port: many", "port"),
    ],
)
def test_mistake_in_configuration_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(text)
    assert said in refusal("m", "--config", str(path))


def test_configuration_file_must_be_yaml_and_exist(tmp_path: Path) -> None:
    assert ".yaml" in refusal("m", "--config", str(tmp_path / "config.json"))
    assert "cannot read" in refusal("m", "--config", str(tmp_path / "absent.yaml"))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--max-num-sekvs", "3"], "Did you mean --max-num-seqs?"),
        (["--api-keys", "a"], "Did you mean --api-key?"),
        (["--port", "zero"], "--port"),
        (["--port", "0"], "--port"),
        (["--workers", "0"], "--workers"),
        (["--max-model-len", "0"], "--max-model-len"),
        (["--max-model-len", "long"], "--max-model-len"),
        (["--dtype", "float8"], "bfloat16"),
        (["--gpu-memory-utilization", "1.5"], "--gpu-memory-utilization"),
        (["--override-generation-config", "[1]"], "--override-generation-config"),
        (["another"], "another"),
        (["--enforce-eagr"], "Did you mean --enforce-eager?"),
        (["--uvicorn-log-level", "loud"], "--uvicorn-log-level"),
        (["--stream-interval", "0"], "--stream-interval"),
        (["--sse-keep-alive-interval", "-1"], "--sse-keep-alive-interval"),
        (["--logprobs-mode", "raw_logits"], "--logprobs-mode"),
        (["--default-chat-template-kwargs", "[]"], "--default-chat-template-kwargs"),
        (["--ssl-keyfile", "key.pem"], "--ssl-keyfile needs --ssl-certfile"),
        (["--ssl-certfile", "absent.pem"], "--ssl-certfile"),
        (["--ssl-cert-reqs", "1"], "--ssl-cert-reqs"),
        (["--block-size", "24"], "--block-size"),
        (["--max-logprobs", "-2"], "--max-logprobs"),
        (["--load-format", "gguf"], "safetensors"),
        (["--quantization", "awq"], 'Choose from: "none", "int8"'),
        (["-q", "gptq"], 'Choose from: "none", "int8"'),
        (["--scheduling-policy", "fair"], "priority"),
        (["--task", "transcribe"], "embedding"),
        (["--chat-template-content-format", "list"], "openai"),
        (["--enable-ssl-refresh"], "--enable-ssl-refresh needs --ssl-certfile"),
        (["--speculative-config", '{"method": "eagle"}'], 'must be "ngram", got'),
        (["--speculative-config", '{"method": "ngram", "num_speculative_tokens": 0}'], "num_speculative_tokens"),
        (["--speculative-config", '{"method": "ngram", "prompt_lookup_max": 65}'], "prompt_lookup_max"),
        (["--speculative-config", '{"method": "ngram", "draft": 1}'], "draft"),
    ],
)
def test_mistake_in_flags_is_named(argv: list[str], said: str) -> None:
    assert said in refusal("m", *argv)


def test_model_is_needed() -> None:
    assert "--model" in refusal("--port", "3")


def of_verdict(verdict: str) -> list[str]:
    return sorted(name for name, flag in FOREIGN_FLAGS.items() if flag.verdict == verdict)


def written(name: str) -> list[str]:
    """The flag with a value that is not what is done anyway."""
    flag = FOREIGN_FLAGS[name]
    if flag.takes == "nothing":
        return [f"--no-{name}" if "true" in flag.harmless else f"--{name}"]
    return [f"--{name}", "another"]


@pytest.mark.parametrize("name", of_verdict("refused"))
def test_a_flag_of_vllm_that_cannot_be_honoured_is_refused_with_a_reason(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["m", *written(name)]) == 2
    assert capsys.readouterr().err == f"zqserve: --{name} is not supported: {FOREIGN_FLAGS[name].why}\n"


@pytest.mark.parametrize("name", of_verdict("no effect"))
def test_a_flag_of_vllm_without_meaning_here_is_taken_with_a_notice(name: str) -> None:
    parsed = command("m", *written(name), "--port", "77")
    assert parsed.notices == (f"--{name} has no effect: {FOREIGN_FLAGS[name].why}",)
    assert parsed.config.port == 77


@pytest.mark.parametrize("name", [name for name, flag in FOREIGN_FLAGS.items() if flag.harmless])
def test_a_value_that_asks_for_what_is_done_anyway_is_taken(name: str) -> None:
    flag = FOREIGN_FLAGS[name]
    for value in flag.harmless:
        assert configuration("m", f"--{name}={value}") == ServerConfig(model="m")
        if flag.takes != "nothing":
            assert configuration("m", f"--{name.replace('-', '_')}", value) == ServerConfig(model="m")


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["-tp", "2"], "tensor-parallel-size"),
        (["-tp=2"], "tensor-parallel-size"),
        (["--kv-transfer-config.kv_connector", "x"], "kv-transfer-config"),
        (["--lora-modules", "a=b", "c=d"], "lora-modules"),
        (["--trust_remote_code"], "trust-remote-code"),
        (["--no-enable-chunked-prefill"], "enable-chunked-prefill"),
    ],
)
def test_a_refused_flag_is_known_in_every_spelling(argv: list[str], name: str) -> None:
    assert refusal("m", *argv).startswith(f"--{name} is not supported")


@pytest.mark.parametrize("argv", [["-O3"], ["-O", "3"], ["-O.mode", "3"], ["-cc.mode=3"], ["--compilation_config={}"]])
def test_compilation_is_taken_in_every_spelling(argv: list[str]) -> None:
    parsed = command("m", *argv, "--port", "77")
    assert parsed.config == ServerConfig(model="m", port=77)
    assert [notice.split()[0] for notice in parsed.notices] == ["--compilation-config"]


def test_foreign_flags_of_a_configuration_file_are_judged_too(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "use_tqdm_on_load: true\ntrust-remote-code: false\nno-enable-lora: true\ntensor-parallel-size: 1\n"
        "limit-mm-per-prompt: {image: 2}\ndisable-uvicorn-access-log: true\nno_trust_request_chat_template: true\n"
    )
    parsed = command("m", "--config", str(path))
    assert [notice.split()[0] for notice in parsed.notices] == ["--use-tqdm-on-load", "--limit-mm-per-prompt"]
    assert all(str(path) in notice for notice in parsed.notices)
    assert parsed.config == ServerConfig(model="m", config=path, trust_request_chat_template=False)


def test_every_field_of_the_engine_is_filled_from_the_flags() -> None:
    config = ServerConfig(
        model="m",
        dtype="bfloat16",
        quantization="int8",
        max_model_len=1,
        load_format="dummy",
        seed=2,
        device="cpu",
        block_size=3,
        kv_cache_memory=4,
        num_gpu_blocks_override=5,
        gpu_memory_utilization=0.5,
        max_num_seqs=6,
        max_num_batched_tokens=7,
        enable_prefix_caching=False,
        scheduling_policy="priority",
        logprobs_mode="processed_logprobs",
        enforce_eager=True,
        jump_ahead=False,
        task="embedding",
        runner="pooling",
        convert="embed",
        pooler_config={"normalize": False},
        speculative_config={"method": "ngram"},
        num_threads=8,
    )
    engine = config.engine_config("directory", "of the tokenizer")
    defaults = EngineConfig(model="m")
    same = [
        field.name
        for field in dataclasses.fields(EngineConfig)
        if getattr(engine, field.name) == getattr(defaults, field.name)
    ]
    assert same == ["int8_matrix_unit"]  # for tests and measurements alone


def test_help_lists_flags_and_mistakes_exit_with_2() -> None:
    program = [sys.executable, "-m", "zqserve"]
    environment = {**os.environ, "COLUMNS": "120"}
    shown = subprocess.run([*program, "--help"], capture_output=True, text=True, env=environment, timeout=300)
    assert shown.returncode == 0
    assert "--max-model-len" in shown.stdout
    assert "8k" in shown.stdout
    assert "--async-scheduling" in shown.stdout
    wrong = subprocess.run([*program, "m", "--prot", "1"], capture_output=True, text=True, timeout=300)
    assert wrong.returncode == 2
    assert "--port" in wrong.stderr


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("max-model-len", "Longest prompt plus output"),
        ("--max_model_len", "Default: auto"),
        ("api-key", "VLLM_API_KEY"),
        ("disable-log-requests", "--enable-log-requests"),
        ("logging", "--max-log-len"),
        ("dtype", "bfloat16"),
        ("ssl", "--ssl-ca-certs"),
        ("async-scheduling", "Taken without an effect"),
        ("tensor-parallel-size", "Refused: the engine runs on one device"),
    ],
)
def test_help_of_a_word_shows_a_flag_or_a_group_of_flags(word: str, said: str) -> None:
    assert said in shown_help(word)
    assert "--port" not in shown_help(word)


def test_help_of_an_unknown_word_names_the_nearest() -> None:
    assert "--help=max-model-len" in refusal("--help=max-modl-len")


def test_every_flag_is_in_a_group_says_something_and_is_no_foreign_one() -> None:
    groups = [shown_help(group) for group in ("model", "server", "engine", "requests", "logging")]
    shown = [flag.splitlines() for flag in "\n".join(groups).split("\n\n")]
    names = {name.removeprefix("--") for lines in shown for name in lines[0].split()}
    fields = {field.name.replace("_", "-") for field in dataclasses.fields(ServerConfig)}
    assert fields - {"log-requests"} <= names
    assert names & set(FOREIGN_FLAGS) == set()
    assert all(len(lines[1].strip()) > 15 for lines in shown)


def test_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["--version"]) == Shown()
    assert capsys.readouterr().out.strip() == version("zqserve")


@pytest.mark.parametrize(
    ("text", "said"), [("{", "cannot be used"), ("[]", "cannot be used"), ('{"version": 9}', "cannot be used")]
)
def test_mistake_in_the_logging_file_ends_the_start(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "logging.json"
    path.write_text(text)
    program = [sys.executable, "-m", "zqserve", "m", "--log-config-file", str(path)]
    wrong = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert wrong.returncode == 2
    assert said in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize("path", ["middleware", "no.such.module", "json.no_such_name", "json.decoder"])
def test_middleware_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="--middleware"):
        load_middleware(path)


def test_command_line_needs_neither_torch_nor_the_web_framework() -> None:
    code = (
        "import sys; from zqserve.server.command_line.cli import parse; parse(['m']);"
        "print([name for name in ('torch', 'transformers', 'starlette', 'tokenizers') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert shown.stdout.strip() == "[]"


def test_a_vllm_command_line_for_embeddings_is_taken() -> None:
    config = configuration(
        "m", "--task=embed", "--runner", "pooling", "--override-pooler-config", '{"pooling_type": "MEAN"}'
    )
    assert (config.task, config.runner, config.pooler_config) == ("embed", "pooling", {"pooling_type": "MEAN"})


@pytest.mark.parametrize(
    ("given", "backend"),
    [
        ('{"backend": "xgrammar"}', "xgrammar"),
        ('{"disable_any_whitespace": true, "enable_in_reasoning": false}', "auto:disable-any-whitespace"),
        (
            '{"backend": "guidance", "disable_additional_properties": true, "disable_fallback": true}',
            "guidance:disable-fallback,no-additional-properties",
        ),
    ],
)
def test_the_newer_form_of_the_guided_decoding_backend(given: str, backend: str) -> None:
    assert configuration("m", "--structured-outputs-config", given).guided_decoding_backend == backend


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ('{"whitespace": true}', "unknown field `whitespace`"),
        ('{"backend": 3}', "$.backend"),
        ('{"reasoning_parser": "qwen3"}', "reasoning_parser is not supported"),
    ],
)
def test_what_the_newer_form_does_not_know_is_refused_by_name(given: str, reason: str) -> None:
    assert reason in refusal("m", "--structured-outputs-config", given)

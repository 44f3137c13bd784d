"""The command line: what a user may write, and what is said to one who errs."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zqserve.engine_core.config import EngineConfig
from zqserve.server.cli import UNSUPPORTED_FLAGS, UsageError, parse
from zqserve.server.config import ServerConfig


def configuration(*argv: str) -> ServerConfig:
    config = parse(argv)
    assert config is not None
    return config


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
        ("quantization: awq", "--quantization"),
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
    ],
)
def test_mistake_in_flags_is_named(argv: list[str], said: str) -> None:
    assert said in refusal("m", *argv)


def test_model_is_needed() -> None:
    assert "--model" in refusal("--port", "3")


@pytest.mark.parametrize("flag", sorted(UNSUPPORTED_FLAGS))
def test_flag_that_vllm_has_and_we_do_not_is_refused_with_a_reason(flag: str) -> None:
    assert refusal("m", f"--{flag}", "1") == f"--{flag} is not supported: {UNSUPPORTED_FLAGS[flag]}"


def test_every_field_of_the_engine_is_filled_from_the_flags() -> None:
    config = ServerConfig(
        model="m",
        dtype="bfloat16",
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
        jump_ahead=False,
        task="embedding",
        runner="pooling",
        convert="embed",
        pooler_config={"normalize": False},
        num_threads=8,
    )
    engine = config.engine_config("directory", "of the tokenizer")
    defaults = EngineConfig(model="m")
    same = [
        field.name
        for field in dataclasses.fields(EngineConfig)
        if getattr(engine, field.name) == getattr(defaults, field.name)
    ]
    assert same == []


def test_help_lists_flags_and_mistakes_exit_with_2() -> None:
    command = [sys.executable, "-m", "zqserve"]
    environment = {**os.environ, "COLUMNS": "120"}
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, env=environment, timeout=60)
    assert shown.returncode == 0
    assert "--max-model-len" in shown.stdout
    assert "8k" in shown.stdout
    wrong = subprocess.run([*command, "m", "--prot", "1"], capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 2
    assert "--port" in wrong.stderr


def test_command_line_needs_neither_torch_nor_the_web_framework() -> None:
    code = (
        "import sys; from zqserve.server.cli import parse; parse(['m']);"
        "print([name for name in ('torch', 'transformers', 'starlette', 'tokenizers') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert shown.stdout.strip() == "[]"


def test_a_vllm_command_line_for_embeddings_is_taken() -> None:
    config = parse(["m", "--task=embed", "--runner", "pooling", "--override-pooler-config", '{"pooling_type": "MEAN"}'])
    assert config is not None
    assert (config.task, config.runner, config.pooler_config) == ("embed", "pooling", {"pooling_type": "MEAN"})

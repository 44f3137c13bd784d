"""The command line: `python -m zqserve --model X`, `zqserve serve X`.

Reads flags, environment and configuration file into a `ServerConfig` and hands it to the launcher. Nothing
heavy is imported before the flags are known to be right.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cyclopts.config
from cyclopts import App, CycloptsError, Parameter, UnknownOptionError

from .config import ServerConfig

USAGE_ERROR = 2


def main() -> None:
    """Entry point of the console script; exits with the launcher's status, or 2 for wrong flags."""
    try:
        config = parse(sys.argv[1:])
    except UsageError as error:
        print(f"zqserve: {error}", file=sys.stderr)
        sys.exit(USAGE_ERROR)
    if config is None:
        sys.exit(0)
    from .launcher import launch  # after the flags: --help and mistakes answer at once

    sys.exit(launch(config))


class UsageError(Exception):
    """The flags, the environment or the configuration file are wrong; the message says how."""


def parse(argv: Sequence[str]) -> ServerConfig | None:
    """The configuration that the command line asks for; None when `--help` or `--version` was answered.

    Raises `UsageError`.
    """
    tokens = list(argv)
    if tokens[:1] == ["serve"]:
        del tokens[0]
    app = App(
        name="zqserve",
        version=version("zqserve"),
        help="Serve a language model behind the OpenAI API.\n\n"
        "zqserve serve MODEL and python -m zqserve --model MODEL are the same. "
        "Flags may be spelt with underscores too.",
        usage="zqserve [serve] MODEL [flags]",
        default_parameter=Parameter(allow_repeating=True),  # the last one wins, as in most programs
        result_action="return_value",
        print_error=False,
        exit_on_error=False,
    )
    app.default(_serve)
    path = _config_path(tokens)
    if path is not None:
        app.config = (_config_file(path),)
    try:
        return app(tokens)
    except UnknownOptionError as error:
        raise UsageError(_unknown_flag(error)) from None
    except CycloptsError as error:
        raise UsageError(str(error)) from None


def _serve(config: ServerConfig) -> ServerConfig:
    return config


def _config_path(tokens: list[str]) -> Path | None:
    """The value of `--config`, which must be known before the rest is parsed."""
    for index, token in enumerate(tokens):
        if token.startswith("--config="):
            return Path(token.removeprefix("--config="))
        if token == "--config" and index + 1 < len(tokens):
            return Path(tokens[index + 1])
    return None


def _config_file(path: Path) -> cyclopts.config.Dict:
    """The flags of a YAML file, as cyclopts takes them. Raises `UsageError`."""
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"--config takes a .yaml or .yml file, got {path}.")
    import yaml  # only for those who have a file

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read the configuration file: {error}") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise UsageError(f"{path} must be a mapping of flags (without dashes) to values.")
    values = dict(_flag(key, value) for key, value in data.items() if value is not None)
    return cyclopts.config.Dict(data=values, source=str(path), use_commands_as_keys=False)


def _flag(key: str, value: Any) -> tuple[str, Any]:
    """The flag that a key of the file means: `no-x: true` is `x: false`, a nested map is a JSON object."""
    name = key.replace("_", "-")
    if isinstance(value, dict):
        return name, json.dumps(value)
    if isinstance(value, bool) and name.startswith("no-"):
        return name.removeprefix("no-"), not value
    if isinstance(value, bool) and name.startswith("disable-"):
        return "enable-" + name.removeprefix("disable-"), not value
    return name, value


def _unknown_flag(error: UnknownOptionError) -> str:
    """Why the flag is refused: vLLM has it and we do not, or nobody knows it and another is near."""
    name = (error.token.keyword or error.token.value).split("=", 1)[0].strip("-[]").replace("_", "-")
    source = "" if error.token.source == "cli" else f" (in {error.token.source})"
    reason = UNSUPPORTED_FLAGS.get(name) or UNSUPPORTED_FLAGS.get(name.removeprefix("no-"))
    if reason:
        return f"--{name}{source} is not supported: {reason}"
    known = [flag for argument in error.argument_collection for flag in argument.names]
    nearest = difflib.get_close_matches(f"--{name}", known, n=1)
    return f"unknown flag --{name}{source}." + (f" Did you mean {nearest[0]}?" if nearest else "")


_ONE_DEVICE = "the engine runs on one device; leave the flag out."
_NO_TOOLS = "tool calling is not served yet."
_NO_MEDIA = "only text models are served."
_NO_LORA = "adapters are not served yet; merge them into the weights."

UNSUPPORTED_FLAGS = {
    "trust-remote-code": "code that comes with a model is never run.",
    "tokenizer-mode": "the tokenizer is always the fast one of tokenizer.json.",
    "tokenizer-revision": "give --tokenizer the directory of that revision.",
    "code-revision": "code that comes with a model is never run.",
    "download-dir": "nothing is downloaded; put the model into the local cache or give its directory.",
    "hf-token": "nothing is downloaded; put the model into the local cache or give its directory.",
    "hf-overrides": "edit the model's config.json instead.",
    "quantization": "weights are served in the type given by --dtype.",
    "kv-cache-dtype": "the cache has the type given by --dtype.",
    "swap-space": "preempted requests are recomputed, nothing is swapped.",
    "cpu-offload-gb": "weights are not offloaded.",
    "tensor-parallel-size": _ONE_DEVICE,
    "pipeline-parallel-size": _ONE_DEVICE,
    "data-parallel-size": _ONE_DEVICE,
    "distributed-executor-backend": _ONE_DEVICE,
    "enable-chunked-prefill": "long prompts are always computed in chunks; leave the flag out.",
    "enforce-eager": "there is no graph capture to turn off; leave the flag out.",
    "compilation-config": "there is nothing to compile; leave the flag out.",
    "disable-log-stats": "statistics are on /metrics only; leave the flag out.",
    "enable-request-id-headers": "X-Request-Id is always answered; leave the flag out.",
    "max-num-queued-reqs": "the queue is not bounded yet.",
    "max-num-queued-tokens": "the queue is not bounded yet.",
    "logprobs-mode": "logprobs are always the model's own (raw_logprobs).",
    "default-chat-template-kwargs": "send chat_template_kwargs with the request.",
    "enable-auto-tool-choice": _NO_TOOLS,
    "tool-call-parser": _NO_TOOLS,
    "tool-parser-plugin": _NO_TOOLS,
    "exclude-tools-when-tool-choice-none": _NO_TOOLS,
    "reasoning-parser": "reasoning is returned as part of the text.",
    "structured-outputs-config": "use --guided-decoding-backend with its options.",
    "limit-mm-per-prompt": _NO_MEDIA,
    "allowed-local-media-path": _NO_MEDIA,
    "allowed-media-domains": _NO_MEDIA,
    "mm-processor-kwargs": _NO_MEDIA,
    "enable-lora": _NO_LORA,
    "lora-modules": _NO_LORA,
    "max-loras": _NO_LORA,
    "speculative-config": "speculative decoding is not served yet.",
    "ssl-keyfile": "put a proxy that ends TLS in front.",
    "ssl-certfile": "put a proxy that ends TLS in front.",
    "ssl-ca-certs": "put a proxy that ends TLS in front.",
    "ssl-cert-reqs": "put a proxy that ends TLS in front.",
    "middleware": "put a proxy in front.",
    "log-config-file": "use --log-level.",
    "sse-keep-alive-interval": "streams send no keep-alive comments yet.",
    "stream-interval": "every step's text is sent at once.",
}

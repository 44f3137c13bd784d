"""Flags of vLLM's server that are no flags here: which are refused, and which are taken without an effect.

`cli.py` takes them off the command line and out of the configuration file before the rest is parsed; the offline API
judges arguments of the same names. None of them is dropped in silence: a refusal says what to do instead, and what is
taken without an effect is logged once at the start.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class ForeignFlag:
    """What becomes of a flag that vLLM has and we do not."""

    verdict: Literal["refused", "no effect"]
    why: str
    harmless: tuple[str, ...] = ()
    """Values that ask for what is done anyway; for a switch "true" and "false"."""
    takes: Literal["nothing", "one value", "values"] = "one value"


class RefusedFlagError(Exception):
    """A flag that cannot be honoured; the message says what to do."""


def take_foreign_flags(tokens: Sequence[str]) -> tuple[list[str], list[str]]:
    """The tokens that are ours, and a notice for each flag that has no effect. Raises `RefusedFlagError`."""
    ours: list[str] = []
    notices: list[str] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        position += 1
        name, negated, value = _split(token)
        flag = None if name is None else FOREIGN_FLAGS.get(name)
        if name is None or flag is None:
            ours.append(token)
            continue
        values = [] if value is None else [value]
        if not values and flag.takes != "nothing" and not negated:
            while position < len(tokens) and not tokens[position].startswith("--"):
                values.append(tokens[position])
                position += 1
                if flag.takes == "one value":
                    break
        if flag.takes == "nothing":
            is_on = (values or ["true"])[0].lower() not in ("false", "0", "no")
            values = ["false" if is_on == negated else "true"]
        notices += judge(name, values, shown=f"--{name}")
    return ours, notices


def judge(name: str, values: Sequence[Any], shown: str) -> list[str]:
    """The notice that is due for a flag of `FOREIGN_FLAGS`, none where its value asks for what is done anyway.

    `shown` is what the notice calls it. Raises `RefusedFlagError`.
    """
    flag = FOREIGN_FLAGS[name]
    if values and all(str(value).lower() in flag.harmless for value in values):
        return []
    if flag.verdict == "refused":
        raise RefusedFlagError(f"{shown} is not supported: {flag.why}")
    return [f"{shown} has no effect: {flag.why}"]


def foreign_help(name: str) -> str:
    """What `--help=NAME` shows for a flag of `FOREIGN_FLAGS`."""
    flag = FOREIGN_FLAGS[name]
    verdict = "Taken without an effect" if flag.verdict == "no effect" else "Refused"
    taken = f" Taken with {' or '.join(flag.harmless)}." if flag.harmless and flag.verdict == "refused" else ""
    return f"--{name}\n    {verdict}: {flag.why}{taken}\n"


def _split(token: str) -> tuple[str | None, bool, str | None]:
    """Name, whether it stands negated, and value of a flag: `--no-some_name=3`, `-tp`, `-O3`, `--name.key`.

    The name is None for what is no flag.
    """
    if re.fullmatch(r"-O\d", token):
        return SHORT_NAMES["-O"], False, token[2:]
    text, has_value, value = token.partition("=")
    short = SHORT_NAMES.get(text.split(".", 1)[0])
    if short is not None:
        return short, False, value if has_value else None
    if not text.startswith("--"):
        return None, False, None
    name = text.removeprefix("--").replace("_", "-")
    name = name.split(".", 1)[0]  # vLLM takes --some-config.key value for one key of a JSON object
    if name not in FOREIGN_FLAGS and name.startswith("no-"):
        return name.removeprefix("no-"), True, value if has_value else None
    return name, False, value if has_value else None


def _refused(why: str, *harmless: str, takes: Literal["one value", "values"] = "one value") -> ForeignFlag:
    return ForeignFlag("refused", why, harmless, takes)


def _refused_switch(why: str) -> ForeignFlag:
    return ForeignFlag("refused", why, ("false",), "nothing")


def _no_effect(why: str, *harmless: str, takes: Literal["one value", "values"] = "one value") -> ForeignFlag:
    return ForeignFlag("no effect", why, harmless, takes)


def _no_effect_switch(why: str) -> ForeignFlag:
    return ForeignFlag("no effect", why, (), "nothing")


_ONE_DEVICE = "the engine runs on one device; leave the flag out, or start one server a device."
_NO_MEDIA = "only text models are served; a request with an image, audio or video is answered 400."
_NO_LORA = "adapters are not served; merge them into the weights and serve the merged model."
_NO_SPECULATION = 'use --speculative-config \'{"method": "ngram"}\'.'
_NO_COMPILATION = "a GPU's decode steps are recorded, unless --enforce-eager says no, and nothing else is."
_NO_REMOTE_CODE = "code that comes with a model is never run; models that transformers knows need none."
_EDIT_CONFIG = "edit the model's config.json instead."
_NO_TRANSFER = "caches are not moved between servers; leave the flag out."

SHORT_NAMES = {
    "-tp": "tensor-parallel-size",
    "-pp": "pipeline-parallel-size",
    "-dp": "data-parallel-size",
    "-cc": "compilation-config",
    "-O": "compilation-config",
}

FOREIGN_FLAGS = {
    # model
    "trust-remote-code": _refused_switch(_NO_REMOTE_CODE),
    "code-revision": _refused(_NO_REMOTE_CODE),
    "hf-token": _no_effect("the server downloads nothing; `zqserve models pull` takes --hf-token."),
    "hf-config-path": _refused(_EDIT_CONFIG),
    "hf-overrides": _refused(_EDIT_CONFIG, "{}"),
    "rope-scaling": _refused(_EDIT_CONFIG),
    "rope-theta": _refused(_EDIT_CONFIG),
    "config-format": _refused("models have a config.json in Hugging Face form.", "auto", "hf"),
    "model-impl": _refused("transformers' own modelling code runs, always.", "auto", "transformers"),
    "tokenizer-mode": _refused("the tokenizer is always the fast one of tokenizer.json.", "auto", "hf", "fast"),
    "skip-tokenizer-init": _refused_switch("the server speaks text; token ids as prompts need no flag."),
    "disable-sliding-window": _refused_switch("use --max-model-len to stay within the window."),
    "disable-cascade-attn": _no_effect_switch("there is no cascade attention."),
    "kv-cache-dtype": _refused("the cache has the type given by --dtype.", "auto"),
    "calculate-kv-scales": _refused_switch("the cache has the type given by --dtype."),
    "model-loader-extra-config": _refused("--load-format has all that the loader can be told.", "{}"),
    "ignore-patterns": _no_effect("the server downloads nothing.", takes="values"),
    "use-tqdm-on-load": _no_effect_switch("a progress bar is shown where there is a terminal."),
    # memory and devices
    "swap-space": _no_effect("preempted requests are computed again, nothing is swapped.", "0", "0.0"),
    "cpu-offload-gb": _refused("weights are not offloaded; take a smaller --dtype.", "0", "0.0"),
    "tensor-parallel-size": _refused(_ONE_DEVICE, "1"),
    "pipeline-parallel-size": _refused(_ONE_DEVICE, "1"),
    "data-parallel-size": _refused(_ONE_DEVICE, "1"),
    "nnodes": _refused(_ONE_DEVICE, "1"),
    "enable-expert-parallel": _refused_switch(_ONE_DEVICE),
    "distributed-executor-backend": _refused(_ONE_DEVICE, "mp", "uni"),
    "disable-custom-all-reduce": _no_effect_switch("there is one device, and nothing to reduce between devices."),
    "max-parallel-loading-workers": _no_effect("there is one device; its weights are read once."),
    "prefix-caching-hash-algo": _no_effect("prefixes are told apart by their tokens."),
    "kv-transfer-config": _refused(_NO_TRANSFER),
    "kv-events-config": _refused(_NO_TRANSFER),
    # steps
    "enable-chunked-prefill": ForeignFlag(
        "refused",
        "long prompts are always computed in chunks; --max-num-batched-tokens sets how long they are.",
        ("true",),
        "nothing",
    ),
    "num-scheduler-steps": _no_effect("every step is scheduled.", "1"),
    "multi-step-stream-outputs": _no_effect_switch("every step is streamed; see --stream-interval."),
    "scheduler-delay-factor": _no_effect("prompts are computed beside running requests, without delay.", "0", "0.0"),
    "preemption-mode": _refused("preempted requests are computed again.", "recompute"),
    "async-scheduling": _no_effect_switch("on a GPU steps are always begun before the last one is read."),
    "use-v2-block-manager": _no_effect_switch("there is one block manager."),
    "compilation-config": _no_effect(_NO_COMPILATION),
    "cuda-graph-sizes": _no_effect(_NO_COMPILATION, takes="values"),
    "max-seq-len-to-capture": _no_effect(_NO_COMPILATION),
    "speculative-model": _refused(_NO_SPECULATION),
    "num-speculative-tokens": _refused(_NO_SPECULATION, "0"),
    # requests
    "tool-parser-plugin": _refused("code of the operator does not run in the server; see --tool-call-parser."),
    "tool-server": _refused("tools run with the client, never in the server."),
    "reasoning-parser": _refused("reasoning is returned as part of the text; leave the flag out."),
    "logits-processors": _refused("code of the operator does not run in the engine."),
    "logits-processor-pattern": _refused("requests cannot name code; a request with logits_processors is refused."),
    "limit-mm-per-prompt": _no_effect(_NO_MEDIA, "{}"),
    "allowed-local-media-path": _no_effect(_NO_MEDIA),
    "allowed-media-domains": _no_effect(_NO_MEDIA, takes="values"),
    "mm-processor-kwargs": _no_effect(_NO_MEDIA, "{}"),
    "enable-lora": _refused_switch(_NO_LORA),
    "lora-modules": _refused(_NO_LORA, takes="values"),
    "max-loras": _refused(_NO_LORA),
    "max-lora-rank": _refused(_NO_LORA),
    "enable-prompt-adapter": _refused_switch(_NO_LORA),
    # server and logs
    "enable-request-id-headers": _no_effect_switch("X-Request-Id is always answered."),
    "enable-server-load-tracking": _no_effect_switch("GET /load always answers."),
    "disable-frontend-multiprocessing": _no_effect_switch("the engine always has a process of its own."),
    "disable-log-stats": _no_effect_switch("statistics are never logged; they are on /metrics."),
    "enable-log-outputs": _refused_switch("answers are never logged; --log-prompts shows the beginning of prompts."),
    "otlp-traces-endpoint": _refused("there is no tracing; times are on /metrics and in the request log."),
    "headless": _refused_switch(_ONE_DEVICE),
}

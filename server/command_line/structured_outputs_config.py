"""`--structured-outputs-config`: vLLM's newer way to say what `--guided-decoding-backend` says.

Its JSON object becomes the name of a backend with options, which is what the rest of the server knows.
"""

from __future__ import annotations

import msgspec


class _Config(msgspec.Struct, forbid_unknown_fields=True):
    backend: str = "auto"
    disable_fallback: bool = False
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    reasoning_parser: str = ""
    reasoning_parser_plugin: str = ""
    enable_in_reasoning: bool = False


def backend_of_config(text: str) -> str:
    """The backend with its options that a JSON object stands for; any other text is one already.

    Raises ValueError for JSON that is wrong, and for what the server does not do.
    """
    if not text.lstrip().startswith("{"):
        return text
    try:
        config = msgspec.json.decode(text, type=_Config)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    for name in ("reasoning_parser", "reasoning_parser_plugin", "enable_in_reasoning"):
        if getattr(config, name):
            raise ValueError(f"{name} is not supported: reasoning is returned as part of the text")
    options = {
        "disable-fallback": config.disable_fallback,
        "disable-any-whitespace": config.disable_any_whitespace,
        "no-additional-properties": config.disable_additional_properties,
    }
    named = [name for name, is_wanted in options.items() if is_wanted]
    return config.backend if not named else f"{config.backend}:{','.join(named)}"

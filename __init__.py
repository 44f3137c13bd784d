"""zqserve: an OpenAI-compatible server and offline engine for open language models.

The public names of the offline API, loaded when first used: the server's processes import only what they need.

    from zqserve import LLM, SamplingParams

    outputs = LLM("path/of/a/model").generate("The capital of France is", SamplingParams(temperature=0))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine_core.guided_params import GuidedDecodingParams, StructuredOutputsParams
    from .engine_core.pooling.pooling_params import PoolingParams
    from .engine_core.sampling_params import SamplingParams
    from .llm import LLM
    from .offline.beam_search import BeamSearchOutput, BeamSearchParams
    from .outputs import CompletionOutput, RequestOutput
    from .pooling_outputs import PoolingRequestOutput

    __version__: str

__all__ = [
    "LLM",
    "BeamSearchOutput",
    "BeamSearchParams",
    "CompletionOutput",
    "GuidedDecodingParams",
    "PoolingParams",
    "PoolingRequestOutput",
    "RequestOutput",
    "SamplingParams",
    "StructuredOutputsParams",
    "__version__",
]

_MODULES = {
    "LLM": ".llm",
    "SamplingParams": ".engine_core.sampling_params",
    "GuidedDecodingParams": ".engine_core.guided_params",
    "StructuredOutputsParams": ".engine_core.guided_params",
    "BeamSearchParams": ".offline.beam_search",
    "BeamSearchOutput": ".offline.beam_search",
    "RequestOutput": ".outputs",
    "CompletionOutput": ".outputs",
    "PoolingParams": ".engine_core.pooling.pooling_params",
    "PoolingRequestOutput": ".pooling_outputs",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    # Here and not above: whoever imports a submodule passes through this file.
    if name == "__version__":
        from importlib.metadata import version

        return version("zqserve")
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(_MODULES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""`from zqserve.sampling_params import …`: what says how answers are chosen, where users of vLLM look for it."""

from __future__ import annotations

from .engine_core.guided_params import GuidedDecodingParams, StructuredOutputsParams
from .engine_core.sampling_params import RequestOutputKind, SamplingParams
from .offline.beam_search import BeamSearchParams

__all__ = [
    "BeamSearchParams",
    "GuidedDecodingParams",
    "RequestOutputKind",
    "SamplingParams",
    "StructuredOutputsParams",
]

"""The typed configuration of an engine core. Torch-free: the command line, the server and the offline API fill it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from .scheduling.prompt_lookup import PromptLookupConfig
from .serving_mode import ConvertFlag, RunnerFlag, TaskFlag

Dtype = Literal["auto", "half", "float16", "bfloat16", "float", "float32"]
LoadFormat = Literal["auto", "safetensors", "pt", "dummy"]
Quantization = Literal["none", "int8"]
SchedulingPolicy = Literal["fcfs", "priority"]
LogprobsMode = Literal["raw", "processed"]
LogprobsFlag = Literal["raw", "raw_logprobs", "processed", "processed_logprobs"]
"""Our names of the modes, and vLLM's."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Everything an engine core must know before it starts."""

    model: str
    """Directory of the model (a hub name is resolved before it comes here)."""
    tokenizer: str | None = None
    """Directory of the tokenizer; None: that of the model. Read for guided decoding alone."""
    dtype: Dtype = "auto"
    quantization: Quantization = "none"
    """"int8": the weights of linear layers are rounded when they are loaded."""
    int8_matrix_unit: bool = True
    """False: vector instructions multiply int8 weights, as on a processor without a matrix unit, so that both ways can
    be tested and measured on one that has it.
    """
    max_model_len: int | None = None
    """Longest prompt plus output, in tokens; None: what the model was made for."""
    load_format: LoadFormat = "auto"
    seed: int = 0
    """Seed of the weights that `load_format="dummy"` makes up."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    block_size: int = 16
    """Tokens of a block of the KV cache."""
    kv_cache_memory_bytes: int | None = None
    """Size of the KV cache; None: chosen from free memory."""
    num_blocks: int | None = None
    """Number of blocks of the KV cache, whatever the memory says."""
    gpu_memory_utilization: float = 0.92
    max_num_seqs: int = 256
    """Requests that run at once."""
    max_num_batched_tokens: int | None = None
    """Token budget of a step; None: what suits the device."""
    enable_prefix_caching: bool = True
    scheduling_policy: SchedulingPolicy = "fcfs"
    logprobs_mode: LogprobsMode = "raw"
    """Whether reported logprobs are the model's own, or those of what the token was drawn from."""
    jump_ahead: bool = True
    """Whether tokens that a grammar leaves no choice about are appended without sampling."""
    prompt_lookup: PromptLookupConfig | None = None
    """How next tokens are guessed from the sequence itself; None: they are not."""
    task: TaskFlag = "auto"
    """What the model is served for, with `runner` and `convert`; see `serving_mode`."""
    runner: RunnerFlag = "auto"
    convert: ConvertFlag = "auto"
    pooler_config: dict[str, Any] = field(default_factory=dict)
    """What is said over the model's own `PoolingConfig`."""
    enforce_eager: bool = False
    """Whether a GPU's decode steps are launched anew each time, instead of recorded as graphs."""
    num_threads: int | None = None
    """Threads of the CPU kernels; None: one a core."""


def logprobs_mode_of(flag: LogprobsFlag) -> LogprobsMode:
    """The mode that a flag names."""
    return "processed" if flag.startswith("processed") else "raw"

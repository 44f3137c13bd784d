"""Which beam searches an engine can run: for the front-end, which refuses the others, and for the engine itself."""

from __future__ import annotations

from ..messages import EngineReady


def beam_search_problem(ready: EngineReady, *, width: int, num_prompt_tokens: int, max_tokens: int) -> str | None:
    """Why a search does not fit, be it alone: too many beams at once, or too long ones for the KV cache."""
    if width > ready.max_beam_width:
        return f"A beam search takes at most {ready.max_beam_width} beams (--max-num-seqs), got {width}."
    num_shared = num_prompt_tokens // ready.block_size
    num_own = -(-(num_prompt_tokens + max_tokens) // ready.block_size) - num_shared
    num_needed = num_shared + width * num_own
    if num_needed > ready.num_blocks:
        return (
            f"{width} beams of up to {max_tokens} tokens need {num_needed * ready.block_size} tokens of the KV cache, "
            f"which has {ready.num_blocks * ready.block_size}. Please ask for fewer beams or a lower max_tokens."
        )
    return None

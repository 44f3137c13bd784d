"""On the PYTHONPATH of a server, it makes three prompts damage the accounts of the engine that they come to."""

from __future__ import annotations

import sys

LEAK_TOKENS = [6, 6, 6, 15, 15, 15]
"""A free block is lost, so that the pool is one smaller than it was."""
STEAL_TOKENS = [6, 6, 6, 16, 16, 16]
"""The block that a running request writes into is the next to be handed out."""
MISTAKE_TOKENS = [6, 6, 6, 17, 17, 17]
"""A free block is counted as held."""

if "zqserve.engine_core.fork_server" in sys.orig_argv:
    from zqserve.engine_core import engine

    add_request = engine.EngineCore.add_request

    def add_damaging_request(self, message, client=b""):
        scheduler = self._scheduler
        pool = scheduler._kv_cache.pool
        if message.prompt_token_ids == LEAK_TOKENS:
            pool._free.popitem()
        elif message.prompt_token_ids == STEAL_TOKENS and scheduler._running:
            block_id = scheduler._running[0].block_ids[-1]
            pool._free[block_id] = None
            pool._free.move_to_end(block_id, last=False)
        elif message.prompt_token_ids == MISTAKE_TOKENS:
            pool._ref_counts[next(reversed(pool._free))] += 1
        add_request(self, message, client)

    engine.EngineCore.add_request = add_damaging_request

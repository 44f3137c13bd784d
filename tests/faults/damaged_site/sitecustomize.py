"""On the PYTHONPATH of a server, it makes three prompts damage the accounts of the engine that they come to.

Each request does so once: should it not be answered before that is noticed, it does the next engine no harm. What was
done is written down in the folder that DAMAGES names.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

LEAK_TOKENS = [6, 6, 6, 15, 15, 15]
"""A free block is lost, so that the pool is one smaller than it was."""
STEAL_TOKENS = [6, 6, 6, 16, 16, 16]
"""The block that a running request writes into is the next to be handed out."""
MISTAKE_TOKENS = [6, 6, 6, 17, 17, 17]
"""A free block is counted as held."""

if "zqserve.engine_core.fork_server" in sys.orig_argv:
    from zqserve.engine_core import engine

    add_request = engine.EngineCore.add_request

    def is_first_time(message):
        try:
            Path(os.environ["DAMAGES"], str(message.arrival_time)).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def add_damaging_request(self, message, client=b""):
        if message.prompt_token_ids in (LEAK_TOKENS, STEAL_TOKENS, MISTAKE_TOKENS) and is_first_time(message):
            do_damage(self._scheduler, message)
        add_request(self, message, client)

    def do_damage(scheduler, message):
        pool = scheduler._kv_cache.pool
        if message.prompt_token_ids == LEAK_TOKENS:
            pool._free.popitem()
        elif message.prompt_token_ids == STEAL_TOKENS and scheduler._running:
            block_id = scheduler._running[0].block_ids[-1]
            pool._free[block_id] = None
            pool._free.move_to_end(block_id, last=False)
        elif message.prompt_token_ids == MISTAKE_TOKENS:
            pool._ref_counts[next(reversed(pool._free))] += 1

    engine.EngineCore.add_request = add_damaging_request

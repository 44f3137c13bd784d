"""On the PYTHONPATH of a server, it makes one prompt greedy: any step with it asks for more memory than there is."""

from __future__ import annotations

import sys

GREEDY_TOKENS = [6, 6, 6, 14, 14, 14]

if "zqserve.engine_core.fork_server" in sys.orig_argv:
    from zqserve.engine_core import engine

    run_in_parts = engine.run_in_parts

    def run_greedily(run, items, failed):
        def run_part(part):
            if any(work.request.token_ids[: len(GREEDY_TOKENS)] == GREEDY_TOKENS for work in part):
                bytearray(1 << 60)
            return run(part)

        return run_in_parts(run_part, items, failed)

    engine.run_in_parts = run_greedily

"""On the PYTHONPATH of a server, it makes one prompt deadly: the engine kills itself in any step that computes it."""

from __future__ import annotations

import os
import signal
import sys

DEADLY_TOKENS = [6, 6, 6, 13, 13, 13]

if "zqserve.engine_core.fork_server" in sys.orig_argv:
    from zqserve.engine_core import engine

    execute = engine.EngineCore._execute

    def deadly_execute(self, scheduled):
        if any(work.request.token_ids[: len(DEADLY_TOKENS)] == DEADLY_TOKENS for work in scheduled):
            os.kill(os.getpid(), signal.SIGKILL)
        return execute(self, scheduled)

    engine.EngineCore._execute = deadly_execute

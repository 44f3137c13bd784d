"""On the PYTHONPATH of a server, it makes two prompts deadly: the engine kills itself in any step that computes the
one, and in the step after an engine has given the other so many tokens.
"""

from __future__ import annotations

import os
import signal
import sys

DEADLY_TOKENS = [6, 6, 6, 13, 13, 13]
LATE_TOKENS = [6, 6, 6, 15, 15, 15]
TOKENS_BEFORE_DEATH = 12

if "zqserve.engine_core.fork_server" in sys.orig_argv:
    from zqserve.engine_core import engine

    execute = engine.EngineCore._execute

    def is_deadly(request):
        num_given = request.num_output_tokens - len(request.message.output_token_ids)
        return request.token_ids[:6] == DEADLY_TOKENS or (
            request.token_ids[:6] == LATE_TOKENS and num_given >= TOKENS_BEFORE_DEATH
        )

    def deadly_execute(self, scheduled):
        if any(is_deadly(work.request) for work in scheduled):
            os.kill(os.getpid(), signal.SIGKILL)
        return execute(self, scheduled)

    engine.EngineCore._execute = deadly_execute

"""zqserve's front-end on an echo engine: the real launcher's parts, with `echo_engine` as the engine's process.

python -m zqserve.bench.common.echo_server --model demo/model --port 8000 --steps-per-second 100
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from zqserve.engine_core.engine_process import EngineProcessArgs
from zqserve.server.config import ServerConfig
from zqserve.server.engine_link.model_info import ModelInfo, load_model_info
from zqserve.server.processes.asgi_server import serve
from zqserve.server.processes.supervisor import Supervisor
from zqserve.server.server_folder import ServerFolder
from zqserve.server.server_status import ServerStatus


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="directory of the model whose tokenizer and name are used")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--steps-per-second", type=float, default=100.0)
    args = parser.parse_args()
    config = ServerConfig(
        args.model,
        host="127.0.0.1",
        port=args.port,
        workers=args.workers,
        log_level="warning",
        max_queued_requests=2**16,
    )
    info = load_model_info(args.model)
    with tempfile.TemporaryDirectory(prefix="zqserve-bench-") as path:
        folder = ServerFolder(Path(path))
        status = ServerStatus(folder.status)
        supervisor = Supervisor(
            EngineProcessArgs(config=config.engine_config(args.model, None), address=folder.engine_address),
            status,
            engine_timeout=config.engine_timeout,
            max_restarts=0,
            on_give_up=lambda: os._exit(1),
            start_process=lambda process_args, pulse: _start_echo(process_args, pulse, info, args.steps_per_second),
        )
        supervisor.start()
        try:
            serve(config, args.model, folder, status)
        finally:
            supervisor.stop()


def _start_echo(
    args: EngineProcessArgs, pulse: int, info: ModelInfo, steps_per_second: float
) -> subprocess.Popen[bytes]:
    options = {
        "--address": args.address,
        "--pulse": pulse,
        "--parent": os.getpid(),
        "--vocab-size": info.vocab_size,
        "--max-model-len": info.max_model_len,
        "--steps-per-second": steps_per_second,
    }
    flags = [str(word) for option in options.items() for word in option]
    return subprocess.Popen([sys.executable, "-m", "zqserve.bench.common.echo_engine", *flags], pass_fds=[pulse])


if __name__ == "__main__":
    main()

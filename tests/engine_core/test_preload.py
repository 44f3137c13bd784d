"""What an engine imports, and that models load and torch's compiler works after it, though it is left out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .tiny_models import save_model

ARCHITECTURES = ("Llama", "Gemma3Text", "Mixtral", "GptOss", "DeepseekV3", "GPT2")

LOAD = """
import gc, sys
from zqserve.engine_core.preload import preload

preload()
from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.model.model_runner import ModelRunner

for directory in sys.argv[1:]:
    ModelRunner(EngineConfig(model=directory, device="cpu", num_blocks=8, num_threads=1))
left_out = [name for name in ("torch._dynamo.eval_frame", "torch.distributed.tensor") if name in sys.modules]
print("imported though not used:", left_out)
print("collector:", gc.isenabled(), gc.get_freeze_count() > 0)

import torch

print("compiled:", torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item())
print("whole:", "torch._dynamo.eval_frame" in sys.modules)
"""


def test_models_load_without_the_compiler_which_comes_when_it_is_asked_for(tmp_path: Path) -> None:
    models = [str(save_model(name, tmp_path)) for name in ARCHITECTURES]
    done = subprocess.run([sys.executable, "-c", LOAD, *models], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "imported though not used: []",
        "collector: True True",
        "compiled: 2.0",
        "whole: True",
    ], done.stderr

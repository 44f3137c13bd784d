"""`from zqserve.entrypoints.chat_utils import load_chat_template`, where users of vLLM look for it."""

from __future__ import annotations

from ..server.prompts.chat_template import load_chat_template

__all__ = ["load_chat_template"]

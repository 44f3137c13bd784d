"""The tools that a request offers: read from the form of the OpenAI API and checked.

What a schema means is not looked at here; `tool_choice.py` has it compiled.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...engine_core.errors import InvalidRequestError

MAX_TOOLS = 512
NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    parameters: dict[str, Any]
    """JSON Schema of its arguments, of type object."""
    strict: bool
    """Whether arguments are to follow the schema even where the model is free to answer with text."""
    param: str
    """Where it stands in the request: `tools[0].function`."""


def read_tools(tools: Any) -> list[Tool]:
    """The tools of a request. Raises `InvalidRequestError` that names the place."""
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise InvalidRequestError("tools", "tools must be a list of tools.")
    if not tools:
        raise InvalidRequestError("tools", "tools must hold at least one tool, or be left out.")
    if len(tools) > MAX_TOOLS:
        raise InvalidRequestError("tools", f"tools may hold at most {MAX_TOOLS} tools, got {len(tools)}.")
    read = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]
    first: dict[str, Tool] = {}
    for tool in read:
        other = first.setdefault(tool.name, tool)
        if other is not tool:
            param = f"{tool.param}.name"
            raise InvalidRequestError(param, f"{param}: {tool.name!r} is the name of {other.param} already.")
    return read


def _tool(tool: Any, place: str) -> Tool:
    kind = tool.get("type", "function") if isinstance(tool, dict) else None
    if kind != "function":
        message = (
            f'{place} must be an object {{"type": "function", "function": {{…}}}}; there are no tools of other types.'
        )
        raise InvalidRequestError(f"{place}.type" if isinstance(tool, dict) else place, message)
    function = tool.get("function")
    place = f"{place}.function"
    if not isinstance(function, dict):
        raise InvalidRequestError(place, f"{place} must be an object with the name and the parameters of the function.")
    name = function.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{place}.name", f"{place}.name must be 1 to 128 of the characters a-z, A-Z, 0-9, _, . and -."
        )
    description = function.get("description")
    if description is not None and not isinstance(description, str):
        raise InvalidRequestError(f"{place}.description", f"{place}.description must be a string.")
    strict = function.get("strict")
    if strict is not None and not isinstance(strict, bool):
        raise InvalidRequestError(f"{place}.strict", f"{place}.strict must be true or false.")
    return Tool(name, _parameters(function.get("parameters"), f"{place}.parameters"), bool(strict), place)


def _parameters(schema: Any, place: str) -> dict[str, Any]:
    """The schema of the arguments; a function without one takes none."""
    if schema is None:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    if not isinstance(schema, dict):
        raise InvalidRequestError(place, f"{place} must be a JSON Schema, which is an object.")
    kind = schema.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        raise InvalidRequestError(place, f'{place}: at /type: arguments are an object, so type must be "object".')
    return {**schema, "type": "object"}

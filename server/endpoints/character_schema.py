"""What /generate answers when it is asked for nothing: the defaults of BentoML's guide to Outlines."""

from __future__ import annotations

import json

DEFAULT_PROMPT = "Give me a character description."

DEFAULT_SCHEMA = json.dumps(
    {
        "title": "Character",
        "type": "object",
        "properties": {
            "name": {"title": "Name", "maxLength": 10, "type": "string"},
            "age": {"title": "Age", "type": "integer"},
            "armor": {"enum": ["leather", "chainmail", "plate"]},
            "weapon": {"enum": ["sword", "axe", "mace", "spear", "bow", "crossbow"]},
            "strength": {"title": "Strength", "type": "integer"},
        },
        "required": ["name", "age", "armor", "weapon", "strength"],
    }
)

"""Types of fields with the limits that `/openapi.json` tells.

Most limits are checked with the rest of the request: those messages name both bounds and the value, the decoder's do
not. `extra_json_schema` is what the decoder passes over.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]
NumSamples = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 1, "maximum": 16_384})]
NumTokens = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 0})]
AnswerTokens = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 1})]
TopCount = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": -1})]
"""A number of the most likely tokens; -1: all."""
TokenId = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 0})]
Int64 = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": -(2**63), "maximum": 2**63 - 1, "format": "int64"})]
Priority = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Temperature = Annotated[float, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": 2})]
Probability = Annotated[float, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": 1})]
PositiveProbability = Annotated[float, msgspec.Meta(extra_json_schema={"exclusiveMinimum": 0, "maximum": 1})]
Penalty = Annotated[float, msgspec.Meta(extra_json_schema={"minimum": -2, "maximum": 2})]
LengthPenalty = Annotated[float, msgspec.Meta(extra_json_schema={"minimum": -10, "maximum": 10})]
PositiveNumber = Annotated[float, msgspec.Meta(extra_json_schema={"exclusiveMinimum": 0})]
NonEmptyText = Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1})]
Message = Annotated[
    dict[str, Any],
    msgspec.Meta(extra_json_schema={"required": ["role"], "properties": {"role": {"type": "string"}}}),
]
Conversation = Annotated[list[Message], msgspec.Meta(extra_json_schema={"minItems": 1})]
Salt = Annotated[str, msgspec.Meta(max_length=128)]

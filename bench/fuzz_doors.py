"""Throws broken input at the doors where strangers' text comes in, and looks for anything but a refusal.

    nice -n 19 python -m bench.fuzz_doors --minutes 10 --seed 1 --door regex --door wire

The doors: patterns, JSON Schemas, grammars (GBNF and Lark), structural tags, chat templates, and messages between the
processes, whose forgeries go on into an engine with a model. Each case is a good input, broken in some ways. A door may
refuse a case, and may take longer than the server would let it (counted as slow); any other exception is a crash: it is
printed with its input, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import msgspec

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import EngineCore, build_engine_core
from zqserve.engine_core.errors import InvalidRequestError
from zqserve.engine_core.messages import (
    AbortRequests,
    EngineOutput,
    EngineRequest,
    EngineStats,
    Grammar,
    Heartbeat,
    Hello,
    StepOutputs,
    TokenLogprobs,
)
from zqserve.engine_core.pooling.pooling_messages import PoolingRequest
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.wire import WireError, pack, seal, unpack_from_engine, unpack_to_engine
from zqserve.guided.errors import GrammarError
from zqserve.server.constraints.constraint import Constraint
from zqserve.server.constraints.grammar_worker import compile_constraint
from zqserve.server.prompts.chat_template import Rendering, render

DEMO_MODEL = Path(__file__).parent.parent / "demo" / "model"
SLOW_SECONDS = 5
MEMORY = 6 << 30

Kind = Literal["regex", "json", "grammar", "structural_tag"]

SEEDS: dict[Kind | Literal["template"], list[str]] = {
    "regex": [
        r"(a|b)*c{2,5}[^x-z\d]+",
        r"\d{4}-\d{2}-\d{2}T(?:[01]\d|2[0-3]):[0-5]\d",
        r"(?i:yes|no)|\p{L}+|\u00e9\x41|[\w.-]+@\w+\.\w{2,}",
        r"^(?=a)b$|(?<name>x)\1|\bword\b|.*?",
        "((a{1,9999}){1,999}){1,9}",
    ],
    "json": [
        '{"type":"object","properties":{"a":{"type":"integer","minimum":-5,"multipleOf":3},"b":{"enum":[1,"x",null]}},'
        '"required":["a"],"additionalProperties":false}',
        '{"type":"array","items":{"$ref":"#/$defs/n"},"minItems":1,"maxItems":5,"uniqueItems":true,'
        '"$defs":{"n":{"anyOf":[{"type":"null"},{"$ref":"#"}]}}}',
        '{"type":"string","pattern":"^[a-z]{2,8}$","minLength":3,"format":"date-time"}',
        '{"allOf":[{"required":["x"]},{"not":{"type":"string"}}],"oneOf":[{"const":1.5e3},{"type":["number","null"]}],'
        '"patternProperties":{"^a":true},"propertyNames":{"maxLength":3},"dependentRequired":{"a":["b"]}}',
        '{"if":{"type":"number"},"then":{"exclusiveMaximum":1e308},"else":{"unevaluatedProperties":false},'
        '"prefixItems":[true,false],"contains":{"const":0},"minContains":2}',
    ],
    "grammar": [
        'root ::= expr "\\n"\nexpr ::= term (("+" | "-") term)*\n# comment\n'
        'term ::= [0-9]+ | "(" expr ")"\nws ::= [ \\t]?',
        'root ::= ("a" | [^b-d\\x20]){2,3} root? "\\u00e9"',
        'start: pair ("," pair)*\npair: NAME "=" (INT | STRING)\nNAME: /[a-z]+/i\n%import common.INT\n'
        'STRING: "\\"" /[^"]*/ "\\""\n%ignore /\\s+/',
    ],
    "structural_tag": [
        '{"type":"structural_tag","triggers":["<f"],'
        '"structures":[{"begin":"<f>","schema":{"type":"object"},"end":"</f>"}]}',
        '{"type":"structural_tag","format":{"type":"sequence","elements":[{"type":"const_string","value":"a"},'
        '{"type":"json_schema","json_schema":{"type":"integer"}}]}}',
    ],
    "template": [
        "{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}{% if loop.first %}\n{% endif %}{% endfor %}",
        "{% set ns = namespace(n=0) %}{% macro f(x, y=1) %}{{ x ~ y }}{% endmacro %}{{ f(ns.n) }}"
        "{{ tools | tojson(indent=2) }}",
        "{{ messages | map(attribute='content') | join('-') | upper }}{% generation %}x{% endgeneration %}",
        "{% if messages[0]['role'] == 'system' and tools is defined %}{{ raise_exception('no') }}{% else %}"
        "{{ strftime_now('%d %b %Y') }}{{ '%s' % 5 }}{{ 'a' * 3 + 'b' }}{{ 2 ** 3 }}{% endif %}",
    ],
}
"""Good inputs of each kind."""

DICTIONARY: dict[str, list[str]] = {
    "regex": [
        r"(",
        r")",
        r"[",
        r"]",
        r"{",
        r"}",
        r"{0,}",
        r"{,9}",
        r"*",
        r"+?",
        r"|",
        r"\\",
        r"\p{",
        r"[^",
        r"(?:",
        r"(?<!",
        r"\b",
        r".",
    ],
    "json": [
        r'{"',
        r'"}',
        r"[",
        r"]",
        r"null",
        r"true",
        r"-1",
        r"1e999",
        r'"$ref":"#"',
        r'"type":',
        r"\ud800",
        r"\u0000",
        r"{}",
        r",",
    ],
    "grammar": [
        *[
            r"::=",
            r"|",
            r"(",
            r")",
            r'"',
            r"[^",
            r"]",
            r"{9999}",
            r"?",
            r"*",
            r"\u{110000}",
            r"%import",
            r":",
            r"/",
            r"->",
        ],
        "\n",
    ],
    "structural_tag": [
        '{"type":"or","elements":[]}',
        '"begin"',
        '"end":""',
        '"triggers":[]',
        "null",
        "[]",
        "{}",
        '"any_text"',
    ],
    "template": [
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "|",
        "~",
        ".__class__",
        "['__init__']",
        "()",
        "*",
        "**",
        "for",
        "in",
        "endfor",
    ],
}
"""What means something there."""

ROGUES = ["\0", "\u2028", "\U0010ffff", "\u0301", "\ud800", "9" * 30, "-", " " * 9, "é", "\x1b", "\\", '"', "'"]


def main() -> int:
    """Fuzz until the time is over; 1 when something crashed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--door", action="append", choices=[*SEEDS, "wire", "engine"])
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _give_up)
    rng = random.Random(args.seed)
    doors = args.door or [*SEEDS, "wire", "engine"]
    engine = _engine() if "engine" in doors else None
    counts: dict[str, Counter[str]] = {door: Counter() for door in doors}
    end = time.monotonic() + 60 * args.minutes
    while time.monotonic() < end:
        door = rng.choice(doors)
        case, run = _case(door, rng, engine)
        outcome = _outcome(run)
        counts[door][outcome.split(":")[0]] += 1
        if outcome.startswith("crash"):
            print(f"--- {door}: {outcome}\n{case!r}", flush=True)
    for door, count in counts.items():
        told = ", ".join(f"{number} {name}" for name, number in sorted(count.items()))
        print(f"{door}: {count.total()} cases: {told}")
    return int(any(count["crash"] for count in counts.values()))


def _outcome(run: Callable[[], Any]) -> str:
    """ "taken", "refused", "slow", or "crash: …"."""
    try:
        with _time_limit():
            run()
    except (GrammarError, InvalidRequestError, WireError):
        return "refused"
    except (TimeoutError, MemoryError):
        return "slow"
    except Exception:
        return f"crash: {traceback.format_exc(limit=-6)}"
    return "taken"


def _case(door: str, rng: random.Random, engine: EngineCore | None) -> tuple[Any, Callable[[], Any]]:
    """An input of a door, and what takes it."""
    if door == "wire":
        frames = _broken_frames(rng)
        unpack = rng.choice((unpack_to_engine, unpack_from_engine))
        return frames, lambda: unpack(frames)
    if door == "engine":
        assert engine is not None
        message = _forged_request(rng)
        return message, lambda: _run_in_engine(engine, message)
    text = _broken_text(SEEDS[door], DICTIONARY[door], rng)  # pyright: ignore[reportArgumentType]
    if door == "template":
        return text, lambda: render(_rendering(text))
    constraint = Constraint(param=door, kind=door, text=text)  # pyright: ignore[reportArgumentType]
    return text, lambda: compile_constraint(constraint)


def _broken_text(seeds: list[str], dictionary: list[str], rng: random.Random) -> str:
    text = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 2, 3, 5, 9))):
        start, end = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        if rng.random() < 0.7:
            end = min(end, start + rng.randint(0, 8))
        piece = text[start:end]
        change = rng.choice(
            (
                "",
                piece * rng.choice((2, 3, 50)),
                piece[::-1],
                rng.choice(dictionary),
                rng.choice(dictionary) + piece,
                rng.choice(ROGUES),
                chr(rng.randrange(1, 0x250)),
                rng.choice(seeds)[start:end],
            )
        )
        text = (text[:start] + change + text[end:])[:20_000]
    return text


def _rendering(text: str) -> Rendering:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    return Rendering(
        source=text,
        comes_with_request=True,
        content_format="auto",
        messages=messages,
        variables={"tools": [{"name": "f"}], "add_generation_prompt": True, "eos_token": "</s>"},
        continue_final_message=False,
    )


def _good_message(rng: random.Random) -> Any:
    params = SamplingParams(temperature=rng.random(), seed=rng.getrandbits(60), stop=["x"], logit_bias={5: 1.0})
    request = EngineRequest(
        key=rng.randrange(5), prompt_token_ids=[rng.randrange(2048) for _ in range(rng.randrange(1, 40))], params=params
    )
    output = EngineOutput(1, [2], "stop", 2, [TokenLogprobs([2, 3], [-0.5, -1.5], 1)], None, 16, 0.25)
    step = StepOutputs([output, output], EngineStats(num_running=2))
    return rng.choice((request, request, AbortRequests([1, 2]), Hello(), step, step, Heartbeat(EngineStats())))


def _broken_frames(rng: random.Random) -> list[bytes]:
    """A message cut, reordered, forged, or of another version."""
    frames = pack(_good_message(rng))
    payload = bytearray(frames[1])
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        if not payload:
            break
        at = rng.randrange(len(payload))
        match rng.randrange(5):
            case 0:
                del payload[at:]
            case 1:
                payload[at] = rng.randrange(256)
            case 2:
                payload[at:at] = rng.randbytes(rng.randrange(9))
            case 3:
                payload[at:at] = payload[at : at + rng.randrange(30)]
            case _:
                del payload[at : at + rng.randrange(1, 9)]
    # With the seal of what it was, which tells, or with its own, as a forger's.
    broken = [frames[0], bytes(payload)] if rng.random() < 0.2 else seal(bytes(payload))
    match rng.randrange(8):
        case 0:
            broken.reverse()
        case 1:
            broken = broken[: rng.randrange(3)]
        case 2:
            broken[0] = rng.randbytes(rng.randrange(5))
        case 3:
            broken += broken
        case _:
            pass
    return broken


def _forged_request(rng: random.Random) -> EngineRequest | PoolingRequest:
    """A request as the engine may be sent it by a front-end that checks nothing."""
    number = rng.choice((-(2**63), -1, 0, 1, 5, 2047, 2048, 2**31, 2**63 - 1))
    token_ids = [rng.choice((number, rng.randrange(2048))) for _ in range(rng.choice((0, 1, 5, 40, 3000)))]
    fields: dict[str, Any] = {"temperature": rng.choice((0.0, 1.0, 2.0)), "max_tokens": rng.choice((0, 1, 5, 2**62))}
    more = {
        "seed": number,
        "top_k": number,
        "min_tokens": number,
        "logprobs": number,
        "prompt_logprobs": number,
        "stop_token_ids": [number],
        "allowed_token_ids": [number],
        "logit_bias": {number: 5.0},
        "n": number,
        "best_of": number,
        "use_beam_search": True,
        "repetition_penalty": 1e-300,
        "presence_penalty": 2.0,
        "ignore_eos": True,
    }
    for name in rng.sample(list(more), rng.randrange(4)):
        fields[name] = more[name]
    params = msgspec.convert({}, SamplingParams)
    for name, value in fields.items():
        setattr(params, name, value)  # past the checks that the front-end's Struct makes
    params.seed = params.seed or 0
    return EngineRequest(
        key=rng.randrange(4),
        prompt_token_ids=token_ids,
        params=params,
        sample_index=rng.choice((0, number)),
        eos_token_ids=rng.choice(([], [2], [number])),
        bad_words_token_ids=rng.choice(([], [[5]], [[number]], [[]])),
        output_token_ids=rng.choice(([], [5], [number])),
        priority=number,
        arrival_time=rng.choice((0.0, -1e300, 1e300)),
        cache_salt=rng.choice(("", "\0")),
        grammar=rng.choice((None, None, None, Grammar(b"k", rng.randbytes(9)))),
    )


def _run_in_engine(engine: EngineCore, message: EngineRequest | PoolingRequest) -> None:
    """Through the wire, as it would come, and on for a few steps beside another one; no step may fail, and the engine
    must be empty afterwards.
    """
    request = unpack_to_engine(pack(message))
    assert isinstance(request, EngineRequest | PoolingRequest)
    params = SamplingParams(max_tokens=20, ignore_eos=True, seed=1)
    engine.add_request(EngineRequest(key=0, prompt_token_ids=[5, 6], params=params), b"beside")
    engine.add_request(request, b"client")
    for _ in range(8):
        for output in engine.step().get(b"beside", []):
            if output.error is not None:
                raise AssertionError(f"It failed the request beside it: {output.error}")
    engine.abort_client(b"client")
    engine.abort_client(b"beside")
    engine.check()
    stats = engine.stats()
    if stats.num_running or stats.num_waiting or stats.kv_cache_usage:
        raise AssertionError(f"Something is left in the engine: {stats}")


def _engine() -> EngineCore:
    config = EngineConfig(model=str(DEMO_MODEL), max_num_seqs=8, kv_cache_memory_bytes=16 << 20)
    return build_engine_core(config, lambda line: None)


@contextmanager
def _time_limit() -> Iterator[None]:
    signal.alarm(SLOW_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def _give_up(number: int, frame: FrameType | None) -> None:
    raise TimeoutError


if __name__ == "__main__":
    sys.exit(main())

"""Generates at random under the masks of JSON Schemas, with the vocabulary of any model, and judges what comes out.

    python bench/guided_fuzz.py demo/model schema.json more_schemas/ --walks 3

The first argument is a directory with a tokenizer.json. A schema file holds a JSON Schema, or an object with one under
"schema". Each mask is compared with what the matcher takes, on some tokens; each finished output is judged by
`jsonschema`, formats included. Exit status 1 if anything is wrong:

    dead end   no token is allowed, and the text is not complete
    disagrees  a token that the mask allows is not taken, or one that it forbids is; or the end likewise
    invalid    the finished text is no JSON, or does not satisfy the schema
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator, validators

from zqserve.engine_core.constraints.guided_decoding import text_of_tokens
from zqserve.engine_core.tokenizer import load_tokenizer
from zqserve.guided.budget import Budget
from zqserve.guided.errors import BudgetExceededError, GrammarError
from zqserve.guided.grammar import CompiledGrammar, GrammarSpec, compile_grammar
from zqserve.guided.masks.token_trie import Vocabulary
from zqserve.guided.matcher import GrammarMatcher

FAULTS = ("dead end", "disagrees", "invalid")
SECONDS = 20.0
"""For one schema, to be compiled and walked."""
TOKENS_TRIED = 20
"""Tokens a mask that are tried against the matcher."""
CLOSING = (b'"', b"}", b"]", b'",', b'"}', b"]}", b"}}", b'":', b"0", b"1", b'"]', b",")
"""Favoured, so that an output comes to its end."""


class Fuzz:
    """One vocabulary."""

    def __init__(self, tokenizer_dir: Path, num_tokens: int) -> None:
        tokenizer = load_tokenizer(tokenizer_dir)
        if tokenizer.eos_token_id is None:
            raise SystemExit(f"{tokenizer_dir} names no eos_token.")
        self.eos_token_id = tokenizer.eos_token_id
        self.vocabulary = Vocabulary(text_of_tokens(tokenizer, tokenizer.vocab_size), (self.eos_token_id,))
        self.closing = np.array([token in CLOSING for token in self.vocabulary.tokens])
        self._num_tokens = num_tokens

    def walk(self, grammar: CompiledGrammar, choice: random.Random) -> tuple[str, bytes]:
        """How a random output ended, and its text: "finished", "unfinished", or a fault."""
        matcher, text = GrammarMatcher(grammar, self.vocabulary), b""
        for _ in range(self._num_tokens):
            allowed = np.flatnonzero(np.unpackbits(matcher.mask().view(np.uint8), bitorder="little"))
            may_end = self.eos_token_id in allowed
            if not len(allowed):
                return "dead end", text
            if may_end != matcher.accepting() or not self._agrees(matcher, allowed, choice):
                return "disagrees", text
            going_on = allowed[allowed != self.eos_token_id]
            if may_end and (not len(going_on) or choice.random() < 0.4):
                return "finished", text
            closing = going_on[self.closing[going_on]]
            token = int(choice.choice(closing if len(closing) and choice.random() < 0.7 else going_on))
            matcher.advance(token)
            text += self.vocabulary.tokens[token]
        return "unfinished", text

    def _agrees(self, matcher: GrammarMatcher, allowed: np.ndarray, choice: random.Random) -> bool:
        tried = [choice.randrange(len(self.vocabulary.tokens)) for _ in range(TOKENS_TRIED)]
        tried += [int(choice.choice(allowed)) for _ in range(TOKENS_TRIED)]
        known = set(allowed.tolist())
        for token in tried:
            taken = matcher.advance(token)
            if taken:
                matcher.rollback(1)
            if taken != (token in known):
                return False
        return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path, help="directory of a model's tokenizer")
    parser.add_argument("schemas", type=Path, nargs="+", help="schema files, or directories of them")
    parser.add_argument("--limit", type=int, default=0, help="only so many schemas, chosen by the seed")
    parser.add_argument("--walks", type=int, default=3, help="outputs a schema")
    parser.add_argument("--tokens", type=int, default=250, help="longest output")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    fuzz = Fuzz(args.tokenizer, args.tokens)
    counts, faults = Counter[str](), 0
    for path, schema in _schemas(args.schemas, args.limit, args.seed):
        for end, detail in _outputs(fuzz, schema, args.walks, random.Random(f"{args.seed} {path.name}")):
            counts[end] += 1
            if end in FAULTS:
                faults += 1
                print(f"{path.name}: {end}: {detail}")
    print(", ".join(f"{number} {end}" for end, number in sorted(counts.items())))
    return 1 if faults else 0


def _schemas(paths: list[Path], limit: int, seed: int) -> Iterator[tuple[Path, Any]]:
    files = [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    random.Random(seed).shuffle(files)
    for file in files[: limit or None]:
        document = json.loads(file.read_text())
        yield file, document.get("schema", document) if isinstance(document, dict) else document


def _outputs(fuzz: Fuzz, schema: Any, num_walks: int, choice: random.Random) -> Iterator[tuple[str, str]]:
    """(how each output ended or was judged, what may say why)"""
    budget = Budget()
    budget.allow(SECONDS)
    try:
        grammar = compile_grammar(GrammarSpec("json", json.dumps(schema)), budget)
        for _ in range(num_walks):
            end, text = fuzz.walk(grammar, choice)
            if end == "finished":
                end = _judgement(schema, text)
            yield end, repr(text[-200:])
    except GrammarError as error:
        yield "refused", str(error)
    except BudgetExceededError:
        yield "out of time", ""


def _judgement(schema: Any, text: bytes) -> str:
    kind = validators.validator_for(schema, default=Draft202012Validator)
    try:
        value = json.loads(text)
        return "valid" if kind(schema, format_checker=kind.FORMAT_CHECKER).is_valid(value) else "invalid"
    except ValueError:
        return "invalid"
    except Exception:  # for one, a pattern that Python's `re` does not know
        return "not judged"


if __name__ == "__main__":
    sys.exit(main())

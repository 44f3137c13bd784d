"""Prompts of random tokens: the same work for any server, and nothing that an earlier run has cached."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

MOST_TRIES = 20


@dataclass(frozen=True)
class SharedPrefix:
    """`number` prefixes of `length` tokens; each prompt begins with one of them, in turns."""

    number: int
    length: int


class RandomPrompts:
    """Draws prompts for one tokenizer."""

    def __init__(self, tokenizer_dir: Path) -> None:
        """tokenizer_dir: a folder with tokenizer.json."""
        path = tokenizer_dir / "tokenizer.json"
        if not path.is_file():
            raise SystemExit(f"There is no {path}: --tokenizer names the folder of the tokenizer that the server uses.")
        self._tokenizer = Tokenizer.from_file(str(path))
        special = {token_id for token_id, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        self._token_ids = [i for i in range(self._tokenizer.get_vocab_size()) if i not in special]

    def texts(self, number: int, length: int, *, seed: int, shared: SharedPrefix | None = None) -> list[str]:
        """Texts of `length` tokens each, behind their shared prefix if there is one."""
        dice = random.Random(seed)
        prefixes = [self._text(shared.length, dice) for _ in range(shared.number)] if shared else [""]
        return [prefixes[i % len(prefixes)] + self._text(length, dice) for i in range(number)]

    def token_ids(self, number: int, length: int, *, seed: int, shared: SharedPrefix | None = None) -> list[list[int]]:
        """The same as token ids."""
        dice = random.Random(seed)
        prefixes = [dice.choices(self._token_ids, k=shared.length) for _ in range(shared.number)] if shared else [[]]
        return [prefixes[i % len(prefixes)] + dice.choices(self._token_ids, k=length) for i in range(number)]

    def _text(self, length: int, dice: random.Random) -> str:
        """A text that is read as so many tokens; as close as it gets in some tries."""
        token_ids: Sequence[int] = dice.choices(self._token_ids, k=length)
        text = ""
        for _ in range(MOST_TRIES):
            text = self._tokenizer.decode(token_ids, skip_special_tokens=False)
            read = self._tokenizer.encode(text, add_special_tokens=False).ids
            if len(read) == length:
                break
            token_ids = read[:length] + dice.choices(self._token_ids, k=max(0, length - len(read)))
        return text

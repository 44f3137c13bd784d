"""Names for full blocks, so that requests with the same beginning share them.

A full block is named by a hash chained over the blocks before it, its own tokens and the salt of the request:
equal names mean equal content, position by position. The hash is a cryptographic one, because whoever could
make two prefixes collide would read the other's answers. The names of a free block stay until the pool hands
the block out.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b

HASH_BYTES = 16


class PrefixCache:
    """Which block holds the content of which name.

    Invariant: `_block_of` and `_hash_of` are inverse to each other: a name has one block and a block one
    name.
    """

    def __init__(self) -> None:
        self._block_of: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._block_of)

    def __contains__(self, block_id: int) -> bool:
        """Whether the block has a name."""
        return block_id in self._hash_of

    @property
    def names(self) -> Mapping[int, bytes]:
        """By block."""
        return self._hash_of

    @property
    def named_blocks(self) -> Mapping[bytes, int]:
        """By name."""
        return self._block_of

    def longest_prefix(self, block_hashes: Iterable[bytes]) -> list[int]:
        """The blocks of the longest known beginning of a chain of names."""
        block_ids: list[int] = []
        for block_hash in block_hashes:
            block_id = self._block_of.get(block_hash)
            if block_id is None:
                break
            block_ids.append(block_id)
        return block_ids

    def insert(self, block_hash: bytes, block_id: int) -> None:
        """Name a block. Where another block already has that name, this one stays without."""
        if self._block_of.setdefault(block_hash, block_id) == block_id:
            self._hash_of[block_id] = block_hash

    def forget(self, block_ids: Iterable[int]) -> None:
        """Take the names of these blocks away, where they have any."""
        for block_id in block_ids:
            block_hash = self._hash_of.pop(block_id, None)
            if block_hash is not None:
                del self._block_of[block_hash]

    def forget_if(self, condition: Callable[[int], bool]) -> None:
        """Take the names of all blocks away for which the condition holds."""
        self.forget([block_id for block_id in self._hash_of if condition(block_id)])


def extend_block_hashes(
    block_hashes: list[bytes], token_ids: Sequence[int], num_blocks: int, block_size: int, salt: str
) -> None:
    """Append to a chain the names of further full blocks of `token_ids`, until it has `num_blocks`.

    The salt enters the first block, and through the chain all others. Token ids fit into 32 bits.
    """
    first = len(block_hashes)
    if first >= num_blocks:
        return
    parent = block_hashes[-1] if block_hashes else _root(salt)
    new_token_ids = array("i", token_ids[first * block_size : num_blocks * block_size])
    content = memoryview(new_token_ids).cast("B")
    size = block_size * new_token_ids.itemsize
    for start in range(0, len(content), size):
        name = blake2b(parent, digest_size=HASH_BYTES)
        name.update(content[start : start + size])
        parent = name.digest()
        block_hashes.append(parent)


def _root(salt: str) -> bytes:
    """The parent of a first block; `person` keeps it apart from every name of a block, whatever the salt
    spells.
    """
    return blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES, person=b"salt").digest()

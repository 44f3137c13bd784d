"""The blocks of each request: found in the prefix cache, taken from the pool, given back.

The scheduler's only door to the KV cache. A full block gets its name when the step that fills it is
*scheduled*, so that a request admitted later in the same step may already share it: in every layer the model
runner writes all keys and values of a step before attention reads any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .block_pool import BlockPool
from .prefix_cache import PrefixCache, extend_block_hashes
from .request import Request
from .step import ScheduledRequest


class KVCacheManager:
    """Gives blocks to requests.

    Invariants: a request holds each block of its `block_ids` once; a request writes only into blocks that it
    alone holds and that have no name before the step, but for a last token that is computed once more, which
    writes what is there; forks of a sequence share its last block until one of them writes; what a name promises
    is computed by the end of the step that is being scheduled.
    """

    def __init__(self, num_blocks: int, block_size: int, *, enable_prefix_caching: bool) -> None:
        self.block_size = block_size
        self.enable_prefix_caching = enable_prefix_caching
        self._pool = BlockPool(num_blocks)
        self._cache = PrefixCache()

    @property
    def pool(self) -> BlockPool:
        """To be looked at."""
        return self._pool

    @property
    def cache(self) -> PrefixCache:
        """To be looked at."""
        return self._cache

    @property
    def num_blocks(self) -> int:
        return self._pool.num_blocks

    @property
    def num_free_blocks(self) -> int:
        return self._pool.num_free

    @property
    def usage(self) -> float:
        """Share of the blocks that requests hold, 0 to 1."""
        return 1.0 - self._pool.num_free / self._pool.num_blocks

    def admit(self, request: Request, *, num_spare_blocks: int) -> bool:
        """Give a request that holds nothing the blocks for all of its tokens, beginning with those in the
        cache.

        Sets `block_ids` and `num_computed_tokens`. False, and nothing is changed, unless `num_spare_blocks`
        stay free.
        """
        cached = self._cached_prefix(request)
        num_new_blocks = -(-len(request.token_ids) // self.block_size) - len(cached)
        num_taken = num_new_blocks + self._pool.count_free(cached)
        if num_taken + num_spare_blocks > self._pool.num_free:
            return False
        self._pool.share(cached)
        request.block_ids = cached + self._allocate(num_new_blocks)
        request.num_computed_tokens = len(cached) * self.block_size
        return True

    def has_room(self, request: Request, num_new_tokens: int) -> bool:
        """Whether the free blocks suffice for the next tokens."""
        num_needed = -(-(request.num_computed_tokens + num_new_tokens) // self.block_size)
        return num_needed - len(request.block_ids) <= self._pool.num_free

    def extend(self, request: Request, num_new_tokens: int, num_drafts: int = 0) -> bool:
        """Make room for the next tokens and the guesses behind them, and name the blocks that the tokens fill. False,
        and nothing is changed, when the free blocks do not suffice.
        """
        block_size = self.block_size
        num_computed = request.num_computed_tokens
        end = num_computed + num_new_tokens
        num_missing = -(-(end + num_drafts) // block_size) - len(request.block_ids)
        if num_missing > 0:
            if num_missing > self._pool.num_free:
                return False
            request.block_ids += self._allocate(num_missing)
        if self.enable_prefix_caching and num_computed // block_size != end // block_size:
            self._name_blocks(request, num_computed // block_size, end // block_size)
        return True

    def accept_drafts(self, request: Request, num_accepted: int) -> None:
        """Take guesses that proved right for computed, and name the blocks that they fill."""
        first = request.num_computed_tokens // self.block_size
        request.num_computed_tokens += num_accepted
        if self.enable_prefix_caching:
            self._name_blocks(request, first, request.num_computed_tokens // self.block_size)

    def extend_together(self, work: Sequence[ScheduledRequest]) -> bool:
        """Make room for the next tokens of all these sequences, forks of each other, or for none of them.

        Where the last block of one is shared, it gets a block of its own, and `work` tells what is to be copied.
        """
        if self._num_blocks_for(work) > self._pool.num_free:
            return False
        for item in work:
            request = item.request
            index, offset = divmod(request.num_computed_tokens, self.block_size)
            if offset and self._pool.ref_count(request.block_ids[index]) > 1:
                shared = request.block_ids[index]
                (own,) = self._allocate(1)
                self._pool.release(shared, keep=True)
                request.block_ids[index] = own
                item.copied_block = (shared, own)
            self.extend(request, item.num_new_tokens)
        return True

    def fork(self, request: Request, other: Request) -> None:
        """Let `other`, which holds nothing and begins with the computed tokens of `request`, share its blocks."""
        self._pool.share(request.block_ids)
        other.block_ids = list(request.block_ids)
        other.num_computed_tokens = request.num_computed_tokens

    def free(self, request: Request) -> None:
        """Take all blocks back; their content stays in the prefix cache until they are needed."""
        # From the last to the first, so that the end of a prefix is lost before its beginning.
        for block_id in reversed(request.block_ids):
            self._pool.release(block_id, keep=block_id in self._cache)
        request.block_ids = []
        request.num_computed_tokens = 0

    def discard(self, request: Request) -> None:
        """Take all blocks back of a request that failed, and share their content with nobody from now on."""
        self._cache.forget(request.block_ids)
        self.free(request)

    def reset_prefix_cache(self) -> None:
        """Forget every cached prefix that no request holds."""
        self._cache.forget_if(lambda block_id: self._pool.ref_count(block_id) == 0)

    def _num_blocks_for(self, work: Sequence[ScheduledRequest]) -> int:
        """How many blocks `extend_together` takes."""
        num_blocks = 0
        num_writers: Counter[int] = Counter()
        for item in work:
            request = item.request
            num_computed = request.num_computed_tokens
            end = num_computed + item.num_new_tokens
            num_blocks += max(0, -(-end // self.block_size) - len(request.block_ids))
            if num_computed % self.block_size:
                num_writers[request.block_ids[num_computed // self.block_size]] += 1
        # The last one to write into a block that nobody else holds any more keeps it.
        copies = (min(count, self._pool.ref_count(block_id) - 1) for block_id, count in num_writers.items())
        return num_blocks + sum(copies)

    def _cached_prefix(self, request: Request) -> list[int]:
        """Blocks of the longest cached prefix. At least one token is left to compute, since its logits are
        needed.
        """
        if not self.enable_prefix_caching:
            return []
        num_tokens = len(request.token_ids)
        num_reusable = num_tokens - 1
        if request.params.prompt_logprobs is not None and request.num_prompt_logprobs < request.num_prompt_tokens - 1:
            # The entry of position p + 1 comes from computing position p.
            num_reusable = request.num_prompt_logprobs
        num_blocks = num_reusable // self.block_size
        self._hash_blocks(request, num_blocks)
        return self._cache.longest_prefix(request.block_hashes[:num_blocks])

    def _name_blocks(self, request: Request, first: int, end: int) -> None:
        self._hash_blocks(request, end)
        for index in range(first, end):
            self._cache.insert(request.block_hashes[index], request.block_ids[index])

    def _hash_blocks(self, request: Request, num_blocks: int) -> None:
        extend_block_hashes(
            request.block_hashes, request.token_ids, num_blocks, self.block_size, request.message.cache_salt
        )

    def _allocate(self, num_blocks: int) -> list[int]:
        block_ids = self._pool.allocate(num_blocks)
        self._cache.forget(block_ids)
        return block_ids

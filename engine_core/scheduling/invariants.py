"""Checks what the scheduler and those below it have written down: a list of what contradicts itself.

The engine core has it checked now and then (`EngineCore.check`). Whatever is found is a bug of ours: some request may
read or write the cache of another. Then the engine ends rather than answer, and another one computes what was running.
Pure, and no word of what a request says is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from operator import eq

from .request import Request, RequestStatus

MAX_TOLD = 8
"""Violations of one check that are told; what is damaged once is seen in many places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The state between two steps, as it is and not copied."""

    requests: Collection[Request]
    """All that have not ended."""
    running: Sequence[Request]
    queued: Sequence[Request]
    """Those that wait, and `num_ended` that have ended since."""
    num_ended: int
    num_more_sequences: int
    """How many more sequences than requests are running."""
    block_size: int
    ref_counts: Sequence[int]
    """By block, how many sequences hold it."""
    free_blocks: Collection[int]
    """Each once."""
    names: Mapping[int, bytes]
    """Of the blocks whose content is known."""
    named_blocks: Mapping[bytes, int]
    """The same, by name."""
    kept: Collection[Request]
    """The sequences for which the model runner keeps something."""


def violations(accounts: Accounts, *, all_names: bool = True) -> list[str]:
    """What is wrong, the first `MAX_TOLD` of it; nothing in a sound engine.

    all_names: look at those of blocks that nobody holds, too. There may be a hundred thousand of them, and the rest
    costs little.
    """
    sequences = [sequence for request in accounts.running for sequence in sequences_of(request)]
    checks = chain(
        _wrong_requests(accounts),
        _wrong_sequences(accounts, sequences),
        _wrong_blocks(accounts, sequences),
        _wrong_names(accounts, sequences),
        _strayed_names(accounts) if all_names else (),
    )
    return list(islice(checks, MAX_TOLD))


def sequences_of(request: Request) -> list[Request]:
    """What a running request computes, and holds blocks for."""
    return [request] if request.beams is None else request.beams.sequences


def _wrong_requests(accounts: Accounts) -> Iterator[str]:
    """Each request that has not ended either runs or waits; one that waits holds nothing."""
    num_ended = 0
    waiting: set[Request] = set()
    for request in accounts.queued:
        if request.status is RequestStatus.FINISHED:
            num_ended += 1
        elif request.status is RequestStatus.RUNNING:
            yield f"{_name(request)} waits and has the status RUNNING"
        waiting.add(request)
        for sequence in (request, *([] if request.beams is None else request.beams.sequences)):
            if sequence.block_ids:
                yield f"{_name(request)} waits or has ended, and holds {len(sequence.block_ids)} blocks"
    if num_ended != accounts.num_ended:
        yield f"{num_ended} requests of the queue have ended, and {accounts.num_ended} are counted"
    if len(waiting) != len(accounts.queued):
        yield f"{len(accounts.queued) - len(waiting)} requests wait twice"
    running = set(accounts.running)
    if len(running) != len(accounts.running):
        yield f"{len(accounts.running) - len(running)} requests run twice"
    for request in running:
        if request.status is not RequestStatus.RUNNING:
            yield f"{_name(request)} runs and has the status {request.status.name}"
        if request in waiting:
            yield f"{_name(request)} both runs and waits"
    num_live = len(running) + len(waiting) - num_ended
    if num_live != len(accounts.requests):
        yield f"{len(accounts.requests)} requests are known, and {num_live} run or wait"
    elif not all(request in running or request in waiting for request in accounts.requests):
        yield "a request is known that neither runs nor waits"


def _wrong_sequences(accounts: Accounts, sequences: Sequence[Request]) -> Iterator[str]:
    """Blocks cover what is computed; the runner keeps nothing but what runs."""
    for sequence in sequences:
        if not 0 <= sequence.num_computed_tokens <= sequence.num_tokens:
            yield f"{_name(sequence)} has computed {sequence.num_computed_tokens} of {sequence.num_tokens} tokens"
        num_slots = len(sequence.block_ids) * accounts.block_size
        if num_slots < sequence.num_computed_tokens:
            yield f"{_name(sequence)} has computed {sequence.num_computed_tokens} tokens into {num_slots} slots"
    num_more = sum(request.beams.width - 1 for request in accounts.running if request.beams is not None)
    if num_more != accounts.num_more_sequences:
        yield f"beam searches have {num_more} more sequences, and {accounts.num_more_sequences} are counted"
    num_strange = len(set(accounts.kept).difference(sequences))
    if num_strange:
        yield f"the runner keeps {num_strange} sequences that do not run"


def _wrong_blocks(accounts: Accounts, sequences: Sequence[Request]) -> Iterator[str]:
    """Each block is free, or held by as many sequences as its reference count says."""
    ref_counts, free = accounts.ref_counts, accounts.free_blocks
    holders = Counter(chain.from_iterable(sequence.block_ids for sequence in sequences))
    for sequence in sequences:
        if len(set(sequence.block_ids)) != len(sequence.block_ids):
            yield f"{_name(sequence)} holds a block twice"
    for block_id, num_holders in holders.items():
        if not 0 <= block_id < len(ref_counts):
            yield f"block {block_id} is held, and there are {len(ref_counts)}"
        elif ref_counts[block_id] != num_holders:
            yield f"block {block_id} is held by {num_holders} sequences, and {ref_counts[block_id]} are counted"
        if block_id in free:
            yield f"block {block_id} is held by {num_holders} sequences, and free"
    num_uncounted = len(ref_counts) - ref_counts.count(0)
    if num_uncounted != len(holders):
        yield f"{len(holders)} blocks are held, and {num_uncounted} are counted as held"
    if len(free) + len(holders) != len(ref_counts):
        yield f"{len(holders)} blocks are held and {len(free)} free, of {len(ref_counts)}"


def _wrong_names(accounts: Accounts, sequences: Sequence[Request]) -> Iterator[str]:
    """A block that a sequence holds bears the sequence's name for it, or none."""
    names, named_blocks = accounts.names, accounts.named_blocks
    if len(names) != len(named_blocks):
        yield f"{len(names)} blocks have names, and there are {len(named_blocks)} names"
    for sequence in sequences:
        for block_id, block_hash in zip(sequence.block_ids, sequence.block_hashes, strict=False):
            if names.get(block_id, block_hash) != block_hash:
                yield f"{_name(sequence)} holds block {block_id}, which bears the name of other content"


def _strayed_names(accounts: Accounts) -> Iterator[str]:
    """A name leads to the block that bears it."""
    if not all(map(eq, map(accounts.named_blocks.get, accounts.names.values()), accounts.names)):
        yield "a name leads to a block that does not bear it"


def _name(request: Request) -> str:
    return f"request {request.message.key} (number {request.sequence_number})"

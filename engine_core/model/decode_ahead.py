"""Decode steps on a GPU that begin before the host has seen what the last one drew: the host is one step behind.

    running = ahead.running                      # begun by the call before; on the device, it may not be done yet
    rows = [running.row_of(item) for item in scheduled]
    going_on = ahead.going_on(scheduled, rows, ...)
    ahead.begin(going_on, parameters)            # the next one, which takes its tokens from `running` on the device
    tokens = running.tokens()                    # now wait; the device has work meanwhile

A step begun ahead is a guess about the schedule and not about tokens: that the same sequences go on by one token each.
What the schedule then asks for is there; what it does not ask for, because a sequence has ended or was preempted, is
dropped. Nothing is written but the key and value of a sequence's next position, into a block that is its own when the
step begins; whoever gets the block later writes behind that, since the device keeps the order of launches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...kernels.sampling import SamplingRows
from ...kernels.triton.decode_attention import split_size
from ...kernels.triton.launch import next_power_of_2
from ...kernels.triton.paged_attention import send_together
from ...kernels.triton.sampling_kernel import send_rows
from ..scheduling.request import Request
from ..scheduling.step import RequestResult, ScheduledRequest
from .attention import AttentionLayers
from .gpu_decode import DecodeSteps


@dataclass(frozen=True, slots=True)
class GoingOn:
    """A sequence of the next step."""

    request: Request
    position: int
    """Where the token stands that the next step computes: behind all that the host knows or is about to know."""
    row: int | None
    """Of the running step, which draws that token; None where the host has it."""
    token_id: int = -1
    """Where `row` is None."""


class RunningStep:
    """A step that was begun."""

    def __init__(self, steps: DecodeSteps, going_on: Sequence[GoingOn]) -> None:
        """Its launches are on their way; so is the copy of what they draw, before another step overwrites it."""
        self.steps = steps
        self._row_of = {item.request: row for row, item in enumerate(going_on)}
        self._positions = [item.position for item in going_on]
        is_cuda = steps.tokens.is_cuda
        self._drawn = torch.empty(len(going_on), dtype=torch.int64, pin_memory=is_cuda)
        self._drawn.copy_(steps.tokens[: len(going_on)], non_blocking=is_cuda)
        self._copied = torch.cuda.Event() if is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def row_of(self, item: ScheduledRequest) -> int | None:
        """The row that computes what is asked for; None where nobody does yet."""
        request = item.request
        row = self._row_of.get(request)
        if row is None or item.drafts or item.copied_block is not None:
            return None
        position = self._positions[row]
        is_it = request.num_computed_tokens == position and request.num_tokens == position + 1
        return row if is_it and item.num_new_tokens == 1 else None

    def forget(self, request: Request) -> None:
        """The sequence has left, and its blocks with it."""
        self._row_of.pop(request, None)

    def has_rows(self, going_on: Sequence[GoingOn]) -> bool:
        """Whether these are its sequences, all of them and in its order."""
        return len(going_on) == len(self._positions) and all(item.row == row for row, item in enumerate(going_on))

    def tokens(self) -> list[int]:
        """What it has drawn for each row, -1 where no logit was finite; waits for it."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._drawn.tolist()


class DecodeAhead:
    """Begins decode steps of one model, by batch sizes that are powers of two."""

    def __init__(
        self,
        model: Any,
        attention: AttentionLayers,
        *,
        max_num_seqs: int,
        max_model_len: int,
        block_size: int,
        device: torch.device,
        use_graphs: bool,
    ) -> None:
        """The caches of `attention` are set. use_graphs: where there is CUDA."""
        self.running: RunningStep | None = None
        self._block_size = block_size
        self._max_model_len = max_model_len
        self._max_blocks = -(-max_model_len // block_size)
        self._device = device
        graph_pool = torch.cuda.graph_pool_handle() if use_graphs and device.type == "cuda" else None
        largest = next_power_of_2(max_num_seqs)
        self._steps = {
            size: DecodeSteps(
                *(model, attention, size, max_model_len),
                split=split_size(max_model_len),
                block_size=block_size,
                device=device,
                use_graph=use_graphs,
                graph_pool=graph_pool,
            )
            for size in (largest >> shift for shift in range(largest.bit_length()))
        }

    def prepare(self) -> None:
        """Record what is to be recorded, the largest first: the others find room in its memory."""
        for steps in self._steps.values():
            steps.prepare()

    def going_on(
        self,
        scheduled: Sequence[ScheduledRequest],
        rows: Sequence[int | None],
        results: Sequence[RequestResult],
        only_draws: Callable[[Request], bool],
    ) -> list[GoingOn]:
        """The sequences that the next step is likely to be asked for; none where one of them needs the host between.

        rows: of the running step, None for what was computed apart, whose results are there. only_draws: whether a
        request's tokens need the device alone.
        """
        found: list[GoingOn] = []
        for item, row, result in zip(scheduled, rows, results, strict=True):
            request, max_tokens = item.request, item.request.params.max_tokens
            if row is None and not result.token_ids:
                continue  # in the middle of its prompt, or at its end
            if not only_draws(request):
                return []
            position = request.num_tokens
            is_last = max_tokens is not None and request.num_output_tokens + 1 >= max_tokens
            has_room = position < min(len(request.block_ids) * self._block_size, self._max_model_len - 1)
            if not is_last and has_room:
                found.append(GoingOn(request, position, row, result.token_ids[-1] if row is None else -1))
        return found

    def begin(self, going_on: Sequence[GoingOn], parameters: Callable[[], SamplingRows]) -> None:
        """Begin with the next step of these sequences, which have blocks for it; without any, none is running.

        parameters: brings those of the sequences, in their order; asked for where they are not the running step's.
        """
        before, self.running = self.running, None  # whose state moves on: where that fails, nothing is begun
        if not going_on:
            return
        if before is not None and before.has_rows(going_on):
            steps = before.steps  # which has moved its state on; only new blocks are unknown to it
            self._bring_blocks(steps, going_on)
        else:
            steps = self._steps[next_power_of_2(len(going_on))]
            self._bring_all(steps, going_on, parameters(), before)
        steps.run()
        self.running = RunningStep(steps, going_on)

    def _bring_blocks(self, steps: DecodeSteps, going_on: Sequence[GoingOn]) -> None:
        """Tell the blocks of those that begin with one."""
        size = self._block_size
        entered = [(row, item) for row, item in enumerate(going_on) if item.position % size == 0]
        if not entered:
            return
        rows = np.array([row for row, _ in entered], np.int64)
        places = np.array([item.position // size for _, item in entered], np.int64)
        blocks = np.array([item.request.block_ids[item.position // size] for _, item in entered], np.int64)
        parts = [part.view(np.int32) for part in (rows, places, blocks)]
        row, place, block = (part.view(torch.int64) for part in send_together(parts, self._device))
        steps.state.block_table.index_put_((row, place), block.to(torch.int32))
        steps.state.slots.index_put_((row,), block * size)

    def _bring_all(
        self,
        steps: DecodeSteps,
        going_on: Sequence[GoingOn],
        parameters: SamplingRows,
        before: RunningStep | None,
    ) -> None:
        """Tell everything of the next step but the tokens that the device has from the one before."""
        size, num_rows, state = self._block_size, len(going_on), steps.state
        positions = np.array([item.position for item in going_on], np.int64)
        tables = np.zeros((num_rows, self._max_blocks), np.int32)
        for row, item in enumerate(going_on):
            tables[row, : len(item.request.block_ids)] = item.request.block_ids
        slots = tables[np.arange(num_rows), positions // size].astype(np.int64) * size + positions % size
        given = np.array([item.token_id for item in going_on], np.int64)
        drawn_by = np.array([-1 if item.row is None else item.row for item in going_on], np.int64)
        parts = [part.view(np.int32) for part in (positions, slots, given, drawn_by)]
        *longs, table = send_together([*parts, tables], self._device)
        position, slot, token, row = (part.view(torch.int64) for part in longs)
        if before is not None and (drawn_by >= 0).any():
            token = torch.where(row >= 0, before.steps.tokens[row.clamp(min=0)], token)
        state.num_keys.zero_()
        state.slots.fill_(-1)
        state.token_ids[:num_rows].copy_(token)
        state.positions[:num_rows].copy_(position)
        state.num_keys[:num_rows].copy_(position + 1)
        state.slots[:num_rows].copy_(slot)
        state.block_table[:num_rows].copy_(table.view(num_rows, -1))
        parameters.position[:] = positions - [item.request.num_prompt_tokens - 1 for item in going_on]
        steps.sampling.set(send_rows(parameters, self._device))

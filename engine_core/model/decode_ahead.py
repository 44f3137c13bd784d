"""Decode steps on a GPU that begin before the host has seen what the last one drew: the host is one step behind.

    running = ahead.running                      # begun by the call before; on the device, it may not be done yet
    rows = [running.row_of(item) for item in scheduled]
    ...                                          # what only the host can draw of it, it draws now
    ahead.begin(ahead.going_on(scheduled, rows, results))    # the next one takes its tokens from it on the device
    tokens = running.tokens()                    # now wait; the device has work meanwhile

A step begun ahead is a guess about the schedule and not about tokens: that the same sequences go on by one token each.
What the schedule then asks for is there; what it does not ask for, because a sequence has ended or was preempted, or
its grammar forces what comes next, is dropped. Nothing is written but the key and value of a sequence's next position,
into a block that is its own when the step begins; whoever gets the block later writes behind that, since the device
keeps the order of launches. What the device has counted for a row that was dropped goes with it: a sequence that comes
back brings all that it asks for (`device_rows`). Forced text is fed to the steps token by token, or is a chunk of an
ordinary step (`is_fed_one_by_one`).

Sequences that need the host between two tokens (`DeviceRows.can_draw`) run in the same steps, in rows whose logits are
left as the model gives them. The host draws these tokens when the step is done, and begins the next one then, before it
tells anybody of the tokens: so one such sequence takes from the others a part of their lead, but neither the recorded
step nor the time in which the host schedules. A forward of its own for it would cost all of them that forward in each
step, which reads all weights once more; to let it sit out every other step would halve its speed for what the others
gain, a draw and two short copies.
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
from ...kernels.triton.paged_attention import send_arrays
from ..scheduling.request import Request
from ..scheduling.step import RequestResult, ScheduledRequest, is_fed_one_by_one
from .attention import AttentionLayers
from .device_rows import DeviceRows, Entering
from .gpu_decode import DecodeSteps


@dataclass(frozen=True, slots=True)
class GoingOn:
    """A sequence of the next step."""

    request: Request
    position: int
    """Where the token stands that the next step computes."""
    row: int | None
    """Of the running step, which draws that token on the device; None where the host has it."""
    token_id: int
    """Where `row` is None."""
    by_device: bool
    """Whether the device is to draw the token behind it. Else the host does, or there is one already."""


class RunningStep:
    """A step that was begun."""

    def __init__(self, steps: DecodeSteps, going_on: Sequence[GoingOn]) -> None:
        """Its launches are on their way; so is the copy of what they draw, before another step overwrites it."""
        self.steps = steps
        self.going_on = going_on
        """The sequences, in the order of its rows."""
        self._row_of = {item.request: row for row, item in enumerate(going_on)}
        is_cuda = steps.tokens.is_cuda
        self._drawn = torch.empty(len(going_on), dtype=torch.int64, pin_memory=is_cuda)
        self._drawn.copy_(steps.tokens[: len(going_on)], non_blocking=is_cuda)
        self._copied = torch.cuda.Event() if is_cuda else None
        if self._copied is not None:
            self._copied.record()

    def is_drawn(self, row: int) -> bool:
        """Whether the device has drawn the token behind the one that a row computes."""
        return self.going_on[row].by_device and self._is_at_end(self.going_on[row])

    def parted(self, rows: Sequence[int | None]) -> tuple[list[int], list[int]]:
        """The numbers of those of the rows whose tokens are for the host to draw, and of those that the device drew.

        The rest of them computes tokens behind which there are others already.
        """
        drawn = [
            (number, self.going_on[row].by_device)
            for number, row in enumerate(rows)
            if row is not None and self._is_at_end(self.going_on[row])
        ]
        return [number for number, by_device in drawn if not by_device], [n for n, by_device in drawn if by_device]

    def logits(self, rows: Sequence[int]) -> torch.Tensor:
        """float32 [len(rows), vocab_size]: copies of those that the model gave for rows that are for the host."""
        (index,) = send_arrays([np.array(rows, np.int64)], self.steps.logits.device)
        return self.steps.logits[index]

    def row_of(self, item: ScheduledRequest) -> int | None:
        """The row that computes what is asked for; None where nobody does yet."""
        request = item.request
        row = self._row_of.get(request)
        if row is None or item.drafts or item.copied_block is not None or item.num_new_tokens != 1:
            return None
        going_on = self.going_on[row]
        if request.num_computed_tokens != going_on.position:
            return None
        if going_on.by_device and self._is_at_end(going_on) and request.guide is not None:
            # Else a token may be forced, so that what was drawn does not count.
            return row if request.guide.is_settled else None
        return row

    def _is_at_end(self, item: GoingOn) -> bool:
        """Whether the token that is computed is the sequence's last."""
        return item.position + 1 == item.request.num_tokens

    def forget(self, request: Request) -> None:
        """The sequence has left, and its blocks with it."""
        self._row_of.pop(request, None)

    def has_rows(self, going_on: Sequence[GoingOn]) -> bool:
        """Whether these are its sequences, all of them and in its order, and the device draws for the same ones."""
        return len(going_on) == len(self.going_on) and all(
            item.request is before.request
            and item.by_device == before.by_device
            and item.row == (row if item.by_device else None)
            for row, (item, before) in enumerate(zip(going_on, self.going_on, strict=True))
        )

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
        rows: DeviceRows,
        *,
        max_num_seqs: int,
        max_model_len: int,
        block_size: int,
        device: torch.device,
        use_graphs: bool,
    ) -> None:
        """The caches of `attention` are set. use_graphs: where there is CUDA."""
        self.running: RunningStep | None = None
        self._rows = rows
        self._block_size = block_size
        self._max_model_len = max_model_len
        self._max_blocks = -(-max_model_len // block_size)
        self._device = device
        graph_pool = torch.cuda.graph_pool_handle() if use_graphs and device.type == "cuda" else None
        largest = next_power_of_2(max_num_seqs)
        self._steps = {
            size: DecodeSteps(
                *(model, attention, rows.state, size, max_model_len),
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

    def forget(self, request: Request) -> None:
        """The sequence has left, or comes back as another."""
        self._rows.forget(request)
        if self.running is not None:
            self.running.forget(request)

    def going_on(
        self, scheduled: Sequence[ScheduledRequest], rows: Sequence[int | None], results: Sequence[RequestResult]
    ) -> list[GoingOn]:
        """The sequences that the next step is likely to be asked for.

        rows: of the running step, None for what was computed apart. Results are there but for what the device draws.
        None go on where one is a beam or guesses: beside each step ahead, that would be another forward.
        """
        found: list[GoingOn] = []
        self._rows.automata.begin_turn()
        for item, row, result in zip(scheduled, rows, results, strict=True):
            request = item.request
            if request.beams is not None or request.lookup is not None:
                return []
            if result.is_complete or result.error is not None:
                continue
            going_on = self._going_on(item, row, result, len(scheduled))
            if going_on is not None:
                found.append(going_on)
        return found

    def _going_on(
        self, item: ScheduledRequest, row: int | None, result: RequestResult, num_running: int
    ) -> GoingOn | None:
        """How a sequence goes on; None where the next step is likely to ask for a chunk of it, or for nothing."""
        request, max_tokens = item.request, item.request.params.max_tokens
        position = request.num_computed_tokens + item.num_new_tokens
        num_known = request.num_tokens + len(result.token_ids)
        num_left = num_known - position
        on_device = num_left == 0 and row is not None and self.running is not None and self.running.is_drawn(row)
        if num_left == 0 and not on_device:
            return None  # its mask was not ready
        if num_left > 1 and (position < request.num_prompt_tokens or not is_fed_one_by_one(num_left, num_running)):
            return None
        num_output = max(num_known, position + 1) - request.num_prompt_tokens
        has_room = position < min(len(request.block_ids) * self._block_size, self._max_model_len - 1)
        if not has_room or (max_tokens is not None and num_output >= max_tokens):
            return None
        if on_device:
            return GoingOn(request, position, row, -1, self._rows.can_draw(request))
        new = result.token_ids[: max(0, position + 1 - request.num_tokens)]
        token_id = new[-1] if new else request.token_ids[position]
        return GoingOn(request, position, None, token_id, num_left == 1 and self._rows.can_enter(request, new))

    def begin(
        self,
        going_on: Sequence[GoingOn],
        row_of: Callable[[Request], int],
        parameters: Callable[[list[int]], SamplingRows],
    ) -> None:
        """Begin with the next step of these sequences, which have blocks for it; without any, none is running.

        row_of: the row that each of them keeps while it runs; parameters: those of the draw, for such rows.
        """
        before, self.running = self.running, None  # whose state moves on: where that fails, nothing is begun
        if not going_on:
            return
        if before is not None and before.has_rows(going_on):
            steps = before.steps  # which has moved its state on
            self._bring_changes(steps, going_on)
        else:
            steps = self._steps[next_power_of_2(len(going_on))]
            self._bring_all(steps, going_on, row_of, before)
        entering = [item for item in going_on if item.row is None and item.by_device]
        if entering:
            drawn = parameters([row_of(item.request) for item in entering])
            drawn.position[:] = [item.position + 1 - item.request.num_prompt_tokens for item in entering]
            self._rows.bring([_entering(item, row_of(item.request)) for item in entering], drawn)
        steps.run()
        self.running = RunningStep(steps, going_on)

    def work(self) -> None:
        """What the host can do for the steps to come while the device computes."""
        for item in () if self.running is None else self.running.going_on:
            guide = item.request.guide
            if not item.by_device and guide is not None and self._rows.automata.work(guide):
                return

    def _bring_changes(self, steps: DecodeSteps, going_on: Sequence[GoingOn]) -> None:
        """Tell what the device does not know: new blocks, and tokens that it did not draw."""
        size, state = self._block_size, steps.state
        entered = [row for row, item in enumerate(going_on) if item.position % size == 0]
        given = [row for row, item in enumerate(going_on) if item.row is None]
        if not entered and not given:
            return
        rows = np.array([*entered, *given], np.int64)
        items = [going_on[row] for row in rows]
        positions = np.array([item.position for item in items], np.int64)
        blocks = np.array([item.request.block_ids[item.position // size] for item in items], np.int32)
        tokens = np.array([item.token_id for item in items], np.int64)
        row, position, block, token = send_arrays([rows, positions, blocks, tokens], self._device)
        state.block_table[row, position // size] = block
        state.slots[row] = block.long() * size + position % size
        of_given = slice(len(entered), None)
        state.token_ids[row[of_given]], state.positions[row[of_given]] = token[of_given], position[of_given]
        state.num_keys[row[of_given]] = (position[of_given] + 1).int()

    def _bring_all(
        self,
        steps: DecodeSteps,
        going_on: Sequence[GoingOn],
        row_of: Callable[[Request], int],
        before: RunningStep | None,
    ) -> None:
        """Tell everything of the next step but the tokens that the device has from the one before."""
        size, num_rows, state = self._block_size, len(going_on), steps.state
        nobody = self._rows.state.nobody
        positions = np.array([item.position for item in going_on], np.int64)
        tables = np.zeros((num_rows, self._max_blocks), np.int32)
        for row, item in enumerate(going_on):
            tables[row, : len(item.request.block_ids)] = item.request.block_ids
        slots = tables[np.arange(num_rows), positions // size].astype(np.int64) * size + positions % size
        given = np.array([item.token_id for item in going_on], np.int64)
        drawn_by = np.array([-1 if item.row is None else item.row for item in going_on], np.int64)
        requests = np.array([row_of(item.request) if item.by_device else nobody for item in going_on], np.int32)
        position, slot, token, row, request, table = send_arrays(
            [positions, slots, given, drawn_by, requests, tables], self._device
        )
        if before is not None and (drawn_by >= 0).any():
            token = torch.where(row >= 0, before.steps.tokens[row.clamp(min=0)], token)
        state.num_keys.zero_()
        state.slots.fill_(-1)
        steps.request_rows.fill_(nobody)
        state.token_ids[:num_rows].copy_(token)
        state.positions[:num_rows].copy_(position)
        state.num_keys[:num_rows].copy_(position + 1)
        state.slots[:num_rows].copy_(slot)
        state.block_table[:num_rows].copy_(table)
        steps.request_rows[:num_rows].copy_(request)


def _entering(item: GoingOn, row: int) -> Entering:
    return Entering(row, item.request, [item.token_id] if item.position == item.request.num_tokens else [])

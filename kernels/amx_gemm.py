"""Rows times a packed weight on Intel's matrix unit (AMX): the kernel of `amx_linear` and of `int8_linear`.

Both operands lie in memory as the tiles read them, 64 bytes to the row of a tile, so bfloat16 and int8 go the same way.
The weight comes in panels of 32 columns, `[panel, step, half of the columns, 16 rows of a tile, 64 bytes]`, padded with
zeros; a step is 32 inputs in bfloat16 and 64 in int8. Where a thread finds a panel's next bytes is what it reads next.

Every sum is one chain over the inputs in their order, so it does not depend on how many rows there are, on where a row
stands among them or on how many threads work.
"""

from __future__ import annotations

import torch
from numba import njit
from torch.nn import functional as F

from . import huge_pages
from .amx import (
    CACHE_LINE,
    CONFIG_BYTES,
    TILE_BYTES,
    TILE_ROW_BYTES,
    TILE_ROWS,
    add_and_narrow_32,
    add_and_narrow_onto_32,
    add_and_round_32,
    configure_tiles,
    join_and_scale_32,
    load_tile,
    multiply_tiles,
    release_tiles,
    store_tile,
    zero_tile,
)
from .gated_activation import ACTIVATIONS, gate_sums_bfloat16
from .kernel_sequence import Buffer, KernelSequence
from .simd import address_of, load_f32, store_i64
from .thread_pool import KernelArguments, ThreadPool, compile_kernel
from .threading_primitives import atomic_add

NO_ACTIVATION = -1

BLOCK = 32
"""Rows of tiles, and columns of the weight, that are multiplied at a time: two tiles each."""

STEP_BYTES = 2 * TILE_BYTES
SUMS_BYTES = 4 * BLOCK * BLOCK
SUMS_ROW_BYTES = 4 * BLOCK

ITEM_BYTES = 1 << 19
"""Weight of one work item: it stays in the second cache while blocks of x pass by."""

MAX_ITEM_PANELS = 8
CHUNK_ROWS = 512
"""Rows of tiles that meet all panels before the next rows do."""

MIN_PARALLEL_WORK = 10_000_000
"""Multiplications below which one thread is done before a second has begun."""

MIN_COUNTED_ROWS = 48
"""Rows that would take as long as reading the weight from memory."""

MIN_SEQUENCE_WORK = 2_000_000
"""`MIN_PARALLEL_WORK` within a sequence, where the other threads are awake."""

LIMBS = 2
"""Rows of tiles that a row of x is in int8: its upper and its lower limb."""


class AmxGemm:
    """`activation(x @ weight.T + bias) + residual`, where x lies as the tiles read it."""

    def __init__(
        self,
        panels: torch.Tensor,
        bias: torch.Tensor | None,
        out_features: int,
        threads: ThreadPool,
        activation: str | None = None,
        scales: torch.Tensor | None = None,
    ) -> None:
        """panels: bfloat16 [panels, steps, 2, 16, 16, 2] or int8 [panels, steps, 2, 16, 16, 4], see above; `scales`
        float32 [out_features] of an int8 weight; bias [out_features].

        With an activation, one of `gated_activation.ACTIVATIONS`, the outputs are gates and values by turns, sixteen
        of each: `activation(gates) * values` is returned in their place, half as wide.
        """
        self.width = out_features if activation is None else out_features // 2
        """Of a row of the output."""
        self._threads = threads
        self._panels = panels
        num_panels, num_steps = panels.shape[:2]
        self._work_of_row = panels.numel()
        self._bias = _padded(bias, out_features, num_panels)
        self._scales = None if scales is None else _padded(scales, out_features, num_panels)
        # As many panels as the cache holds, but four items a thread, so that threads end together.
        panels_per_item = min(MAX_ITEM_PANELS, ITEM_BYTES // (num_steps * STEP_BYTES), num_panels // (4 * threads.size))
        panels_per_item = max(1, panels_per_item)
        thread_bytes = CONFIG_BYTES + SUMS_BYTES
        self._scratch = torch.empty(threads.size * thread_bytes + CACHE_LINE, dtype=torch.uint8)
        self._kernel = compile_kernel(_multiply)
        self._arguments = KernelArguments(18)
        v = self._arguments.values
        v[2] = panels.data_ptr()
        v[3] = self._bias.data_ptr()
        v[7] = num_steps
        v[8] = num_panels
        v[9] = self.width
        v[10] = panels_per_item
        v[11] = -(-self._scratch.data_ptr() // CACHE_LINE) * CACHE_LINE
        v[12] = thread_bytes
        v[14] = NO_ACTIVATION if activation is None else ACTIVATIONS.index(activation)
        v[16] = 0 if self._scales is None else self._scales.data_ptr()

    @property
    def out_bytes(self) -> int:
        """Of a row of the output, bfloat16."""
        return 2 * self.width

    def run(
        self,
        x: torch.Tensor,
        out: torch.Tensor,
        num_rows: int,
        residual: torch.Tensor | None,
        row_scales: torch.Tensor | None = None,
    ) -> None:
        """out [num_rows, width] bfloat16; x, and row_scales float32 [num_rows] with an int8 weight, as `_multiply` has
        them; all contiguous.
        """
        v = self._arguments.values
        v[0] = 0
        v[1] = 0
        v[4] = x.data_ptr()
        v[5] = out.data_ptr()
        v[6] = num_rows
        v[13] = 0 if residual is None else residual.data_ptr()
        v[17] = 0 if row_scales is None else row_scales.data_ptr()
        small = max(num_rows, MIN_COUNTED_ROWS) * self._work_of_row < MIN_PARALLEL_WORK
        self._threads.run(self._kernel, self._arguments, parallel=not small)

    def append_to(
        self,
        sequence: KernelSequence,
        x: Buffer,
        out: Buffer,
        residual: Buffer | None = None,
        row_scales: Buffer | None = None,
    ) -> None:
        """Add the product to a sequence. In a buffer of twice the width the output is stored as float32, for who would
        widen it next.
        """
        values = self._arguments.values.copy()
        values[13] = 0
        values[15] = out.row_bytes == 2 * self.out_bytes
        buffers = {4: x, 5: out}
        if residual is not None:
            buffers[13] = residual
        if row_scales is not None:
            buffers[17] = row_scales
        work = self._work_of_row
        parallel_from = 1 if MIN_COUNTED_ROWS * work >= MIN_SEQUENCE_WORK else -(-MIN_SEQUENCE_WORK // work)
        sequence.append(self._kernel, values, buffers, count=x.count, rows_at=6, parallel_from=parallel_from, keep=self)


def panels_of(weight: torch.Tensor) -> torch.Tensor:
    """A weight [out_features, in_features], bfloat16 or int8, laid out as the kernel reads it."""
    weight = weight.detach()
    grouped = 4 // weight.element_size()
    step = TILE_ROWS * grouped
    num_panels, num_steps = -(-weight.shape[0] // BLOCK), -(-weight.shape[1] // step)
    padding = (0, num_steps * step - weight.shape[1], 0, num_panels * BLOCK - weight.shape[0])
    padded = F.pad(weight, padding) if any(padding) else weight
    # Inputs that stand side by side in a tile move as one number.
    groups = padded.contiguous().view(torch.int32).view(num_panels, 2, 16, num_steps, TILE_ROWS)
    return (
        huge_pages.copied(groups.permute(0, 3, 1, 4, 2))
        .view(weight.dtype)
        .view(num_panels, num_steps, 2, 16, 16, grouped)
    )


def _padded(values: torch.Tensor | None, size: int, num_panels: int) -> torch.Tensor:
    """float32 [num_panels * BLOCK], zeros after the values."""
    padded = torch.zeros(num_panels * BLOCK)
    if values is not None:
        padded[:size] = values.detach()
    return padded


def _multiply(args):
    """Kernel: items are (chunk of rows, group of panels); all panels meet a chunk before the next chunk comes.

    x is `[rows, steps, 64 bytes]`; with an int8 weight each of its rows is two, the upper limb and the lower one, and
    its value is `(256 * upper + lower) * row_scale`.
    """
    base = address_of(args)
    num_panels, panels_per_item = args[8], args[10]
    num_rows = args[6] * _tile_rows_of_row(args)
    config = args[11] + args[12] * atomic_add(base + 8, 1)
    sums = config + CONFIG_BYTES
    items_per_chunk = (num_panels + panels_per_item - 1) // panels_per_item
    num_items = items_per_chunk * ((num_rows + CHUNK_ROWS - 1) // CHUNK_ROWS)
    configured_rows = 0
    item = atomic_add(base, 1)
    while item < num_items:
        row = item // items_per_chunk * CHUNK_ROWS
        rows = min(CHUNK_ROWS, num_rows - row)
        rest = rows % BLOCK
        whole = rows - rest
        panel = item % items_per_chunk * panels_per_item
        panels = min(panels_per_item, num_panels - panel)
        if whole > 0:
            if configured_rows != BLOCK:
                configured_rows = BLOCK
                _configure(config, BLOCK)
            _multiply_blocks(args, row, whole, panel, panels, sums)
        if rest > 0:
            if configured_rows != rest:
                configured_rows = rest
                _configure(config, rest)
            _multiply_rest(args, row + whole, rest, panel, panels, sums)
        item = atomic_add(base, 1)
    release_tiles()


@njit(error_model="numpy")
def _tile_rows_of_row(args):
    return LIMBS if args[16] != 0 else 1


@njit(error_model="numpy")
def _configure(config, rows):
    """Tiles 0 to 3 are sums, two by two; 4 and 5 the upper and lower of `rows` rows of tiles; 6 and 7 the weight."""
    upper = min(rows, TILE_ROWS)
    lower = max(1, rows - TILE_ROWS)
    for i in range(0, CONFIG_BYTES, 8):
        store_i64(config + i, 0)
    store_i64(config, 1)  # palette 1, the only one
    store_i64(config + 16, 0x0040_0040_0040_0040)  # bytes of a row of each tile
    store_i64(config + 24, 0x0040_0040_0040_0040)
    store_i64(config + 48, 0x00_00_00_01_00_00_01_01 * upper + 0x00_00_01_00_01_01_00_00 * lower + (0x1010 << 48))
    configure_tiles(config)


@njit(error_model="numpy")
def _multiply_blocks(args, row, rows, panel, panels, sums):
    """`panels` panels times a multiple of 32 rows: the first 32 as fast as the weight comes, the others from the cache.

    The machine fetches the panels, which lie behind each other, better by itself than when it is told to.
    """
    num_steps = args[7]
    row_bytes = num_steps * TILE_ROW_BYTES
    summed, summed_rows = _output_of(args, row, panel, sums), 0
    for block in range(row, row + rows, BLOCK):
        for p in range(panel, panel + panels):
            weight = args[2] + p * num_steps * STEP_BYTES
            _zero_sums()
            _multiply_32(args[4] + block * row_bytes, row_bytes, weight, num_steps, args[16], summed, summed_rows)
            _store_sums(sums)
            summed, summed_rows = _output_of(args, block, p, sums), BLOCK // _tile_rows_of_row(args)
    _write_output(summed, summed_rows)


@njit(error_model="numpy")
def _multiply_rest(args, row, rows, panel, panels, sums):
    """`panels` panels times less than 32 rows: as fast as the weight can be read."""
    num_steps = args[7]
    row_bytes = num_steps * TILE_ROW_BYTES
    x = args[4] + row * row_bytes
    for p in range(panel, panel + panels):
        weight = args[2] + p * num_steps * STEP_BYTES
        output = _output_of(args, row, p, sums)
        _zero_sums()
        if rows > TILE_ROWS:
            _multiply_32(x, row_bytes, weight, num_steps, args[16], output, 0)
        else:
            _multiply_16(x, row_bytes, weight, num_steps, args[16])
        _store_sums(sums)
        _write_output(output, rows // _tile_rows_of_row(args))


@njit(error_model="numpy")
def _zero_sums():
    zero_tile(0)
    zero_tile(1)
    zero_tile(2)
    zero_tile(3)


@njit(error_model="numpy")
def _store_sums(sums):
    lower = sums + TILE_ROWS * SUMS_ROW_BYTES
    store_tile(0, sums, SUMS_ROW_BYTES)
    store_tile(1, sums + TILE_ROW_BYTES, SUMS_ROW_BYTES)
    store_tile(2, lower, SUMS_ROW_BYTES)
    store_tile(3, lower + TILE_ROW_BYTES, SUMS_ROW_BYTES)


@njit(error_model="numpy")
def _multiply_32(x, row_bytes, weight, steps, is_int8, summed, summed_rows):
    """Sums of up to 32 rows and 32 columns; between the steps, the `summed_rows` rows of the block that was summed
    before are written out.
    """
    lower = x + TILE_ROWS * row_bytes
    rows_a_step = (summed_rows + steps - 1) // steps
    for _ in range(steps):
        load_tile(6, weight, TILE_ROW_BYTES)
        load_tile(4, x, row_bytes)
        multiply_tiles(0, 4, 6, is_int8)
        load_tile(7, weight + TILE_BYTES, TILE_ROW_BYTES)
        multiply_tiles(1, 4, 7, is_int8)
        load_tile(5, lower, row_bytes)
        multiply_tiles(2, 5, 6, is_int8)
        multiply_tiles(3, 5, 7, is_int8)
        rows = min(rows_a_step, summed_rows)
        summed = _write_output(summed, rows)
        summed_rows -= rows
        x += TILE_ROW_BYTES
        lower += TILE_ROW_BYTES
        weight += STEP_BYTES


@njit(error_model="numpy")
def _multiply_16(x, row_bytes, weight, steps, is_int8):
    """Sums of up to 16 rows and 32 columns."""
    for _ in range(steps):
        load_tile(4, x, row_bytes)
        load_tile(6, weight, TILE_ROW_BYTES)
        multiply_tiles(0, 4, 6, is_int8)
        load_tile(7, weight + TILE_BYTES, TILE_ROW_BYTES)
        multiply_tiles(1, 4, 7, is_int8)
        x += TILE_ROW_BYTES
        weight += STEP_BYTES


@njit(error_model="numpy")
def _output_of(args, row, panel, sums):
    """Where the first row of a block of sums goes, and what happens on the way:
    (sums, bias, output, bytes of a row of the output, columns, distance from output to residual, activation, whether
    the output is stored as float32, scales of the columns, scales of the rows). `row` counts rows of tiles.
    """
    width, column, activation, is_float32 = args[9], panel * BLOCK, args[14], args[15] != 0
    row //= _tile_rows_of_row(args)
    bias, scales, row_scales = args[3] + 4 * column, 0, 0
    if args[16] != 0:
        scales, row_scales = args[16] + 4 * column, args[17] + 4 * row
    if activation != NO_ACTIVATION:
        column //= 2
    item_size = 4 if is_float32 else 2
    output = args[5] + item_size * (row * width + column)
    residual = args[13] - args[5] if args[13] != 0 else 0
    row_bytes = item_size * width
    return sums, bias, output, row_bytes, width - column, residual, activation, is_float32, scales, row_scales


@njit(error_model="numpy")
def _write_output(place, rows):
    """Write `rows` rows of sums plus bias to the output; returns the place of the row after them."""
    sums, bias, output, row_bytes, columns, residual, activation, is_float32, scales, row_scales = place
    for _ in range(rows):
        values = sums
        sums += SUMS_ROW_BYTES
        if scales != 0:
            join_and_scale_32(values, sums, load_f32(row_scales), scales)
            sums += SUMS_ROW_BYTES
            row_scales += 4
        if activation != NO_ACTIVATION:
            gate_sums_bfloat16(output, values, bias, activation)
        elif residual != 0:
            add_and_narrow_onto_32(output, values, bias, output + residual, columns)
        elif is_float32:
            add_and_round_32(output, values, bias, columns)
        else:
            add_and_narrow_32(output, values, bias, columns)
        output += row_bytes
    return sums, bias, output, row_bytes, columns, residual, activation, is_float32, scales, row_scales

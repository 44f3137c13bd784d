"""The compiled inner loop: walks the vocabulary's trie through a pushdown automaton to a token mask.

A walk keeps the automaton's state for each depth of the path that it is on, so that a common beginning of many tokens
is tried once. `walk` stops when it needs something that only Python knows (an unexpanded row, a return state not yet
resumed with this result, a deeper part of the matcher's stack), says in `control` what, and goes on at the same node
when called again. All memory is owned by the caller and passed by address.
"""

from __future__ import annotations

import numpy as np

from ..automata.cells import COMPACT, COMPLETE, DEAD, INSIDE, REMEMBERS, SCOPE, UNEXPANDED
from ..automata.pushdown import MAX_CALLS_PER_BYTE
from .compiled_loops import (
    ALLOWED,
    COMPACT_ARCS,
    COUNTED_ROWS,
    LINES,
    PUSH_COUNT,
    PUSH_FIRST,
    PUSH_RETURNS,
    PUSH_ROW,
    RESUME_CASE,
    RESUME_CELL,
    RESUME_FIRST,
    RESUME_NEXT,
    RETURN_ALLOWED,
    RETURN_KIND,
    ROW_FINAL,
    ROW_HIGH,
    ROW_LINE,
    ROW_LOW,
    ROW_NEED,
    compiled,
    i32,
    i64,
    u8,
)
from .row_models import MAX_EXCEPTIONS, MODEL_SIZE, NO_MODEL, UNKNOWN_MODEL
from .trie_nodes import (
    BIG,
    BYTE_MASK,
    DEPTH_MASK,
    DEPTH_SHIFT,
    NO_PIECE,
    NO_TOKEN,
    SKIP_MASK,
    SKIP_SHIFT,
    TOKEN_SHIFT,
    UNKNOWN_PIECE,
)

NODE, END, SEGMENTS, BASE_DEPTH, BASE_KNOWN, LOOKED, SUBJECT, CASE, FOUND = range(9)
LEVELS, BASE, CELLS, CELLS_SIZE, FRESH, ROW_MODEL, MODELS, NUM_ROWS, TRIE_SIZE, WAITING = range(9, 19)
"""Places in `control`.

NODE: the node to go on at. END: where the part of the trie that is walked ends. WAITING: the address of SEGMENTS other
parts to be walked then (int64: first node, end). TRIE_SIZE: where the whole trie ends. BASE_DEPTH: the height of the
matcher's stack; BASE_KNOWN: how many of its levels, from the top, lie at address BASE (int32: return state * 4 +
flags). LOOKED: how many of them the walk has looked at. SUBJECT, CASE: what Python is asked for. FOUND: whether any
token is allowed. LEVELS: the address of the states by depth, LEVEL_SIZE of int32 each. CELLS: of the cells pushed on
the way (parent, return state), CELLS_SIZE of them. FRESH: of a byte for each first byte of a token: 1 if the text of
the innermost call that is to be remembered is certainly new when the token begins so. ROW_MODEL: of each row's model
(int32; NO_MODEL, UNKNOWN_MODEL), for NUM_ROWS rows; MODELS: of MODEL_SIZE bytes for each model (see `find_model`).
"""
CONTROL_SIZE = 19

ROW, STACK, TOP, REMEMBERED, BYTE, LEAST, MOST = range(7)
"""A level: the row; the stack (>= 0: a cell, -1 - n: level n of the matcher's stack); cells in use; whether a text was
remembered on the path; the byte that led here; how many characters must still come at least and at most (-1: any
number)."""
LEVEL_SIZE = 7

INNERMOST, SEEN = 1, 2
"""Flags of a base level: the innermost call that is remembered; a scope in which texts are remembered already."""

MAX_SEGMENTS = 4096

DONE, NEEDS_ROW, NEEDS_RESUME, NEEDS_BASE, NEEDS_CELLS, NEEDS_TEXT, NEEDS_MODEL, NEEDS_PIECE, ENDLESS = range(9)
"""What `walk` returns."""


@compiled
def walk(addresses, control, trie, mask, big_nodes, piece_of, rests, masks):
    """Sets the bits of the tokens that the automaton allows, from node `control[NODE]` to `control[END]` of the trie.

    The state before the first byte is level 0. The last four arrays are those of `Slices`. Returns DONE, or what is
    needed to go on.
    """
    lines, row_line, row_final = i32(addresses[LINES]), i32(addresses[ROW_LINE]), i32(addresses[ROW_FINAL])
    row_low, row_high, row_need = i32(addresses[ROW_LOW]), i32(addresses[ROW_HIGH]), i32(addresses[ROW_NEED])
    compact = i32(addresses[COMPACT_ARCS])
    push_row, push_first = i32(addresses[PUSH_ROW]), i32(addresses[PUSH_FIRST])
    push_count, push_returns = i32(addresses[PUSH_COUNT]), i32(addresses[PUSH_RETURNS])
    return_kind = i32(addresses[RETURN_KIND])
    return_allowed, allowed = i32(addresses[RETURN_ALLOWED]), i32(addresses[ALLOWED])
    resume_first, resume_case = i32(addresses[RESUME_FIRST]), i32(addresses[RESUME_CASE])
    resume_cell, resume_next = i32(addresses[RESUME_CELL]), i32(addresses[RESUME_NEXT])
    counted_rows = i32(addresses[COUNTED_ROWS])
    levels, base, cells = i32(control[LEVELS]), i32(control[BASE]), i32(control[CELLS])
    fresh = u8(control[FRESH])
    base_depth, base_known, cells_size = control[BASE_DEPTH], control[BASE_KNOWN], control[CELLS_SIZE]
    row_model, models, num_rows = i32(control[ROW_MODEL]), u8(control[MODELS]), control[NUM_ROWS]
    waiting, segments = i64(control[WAITING]), control[SEGMENTS]
    looked = control[LOOKED]
    node, end = control[NODE], control[END]
    trie_size = control[TRIE_SIZE]
    needs = DONE
    while True:
        if node >= end:
            if segments == 0:
                break
            segments -= 1
            node, end = waiting[2 * segments], waiting[2 * segments + 1]
            continue
        packed = trie[node]
        byte = np.int64(packed & np.uint64(BYTE_MASK))
        depth = np.int64((packed >> np.uint64(DEPTH_SHIFT)) & np.uint64(DEPTH_MASK))
        before = (depth - 1) * LEVEL_SIZE
        row = np.int64(levels[before + ROW])
        stack = np.int64(levels[before + STACK])
        top = np.int64(levels[before + TOP])
        remembered = levels[before + REMEMBERED]
        least, most = np.int64(levels[before + LEAST]), np.int64(levels[before + MOST])
        alive = False
        calls = 0
        while row != COMPLETE:
            if row_high[row] < 0:
                place = -4 * (1 + np.int64(row_high[row]))
                row = np.int64(counted_rows[place])
                least, most = np.int64(counted_rows[place + 1]), np.int64(counted_rows[place + 2])
            # What the byte does in this row.
            line = np.int64(row_line[row])
            cell = np.int64(DEAD)
            if line >= 0:
                cell = np.int64(lines[(line << 8) + byte])
            elif line == UNEXPANDED:
                control[SUBJECT] = row
                needs = NEEDS_ROW
                break
            else:
                place = COMPACT - line
                last = place + 3 + 2 * np.int64(compact[place])
                otherwise = np.int64(compact[place + 2])
                place += 3
                while place < last and compact[place] != byte:
                    place += 2
                if place < last:
                    cell = np.int64(compact[place + 1])
                elif otherwise >= 0:
                    cell = np.int64(lines[(otherwise << 8) + byte])
            if least > 0 or most >= 0:
                if cell >= 0:
                    need = np.int64(row_need[cell])
                    ends_character = not need & INSIDE
                    if most >= 0 and most - ends_character < need >> 1:
                        cell = np.int64(DEAD)
                    elif ends_character:
                        least = max(least - 1, 0)
                        most -= most > 0
                if cell < 0:
                    if least > 0:
                        break
                    least, most = np.int64(0), np.int64(-1)
            consumed = cell != DEAD
            if cell == DEAD:
                result = np.int64(row_final[row])
                if result < 0:
                    break
                cell = -2 - 2 * result
            # Calls and ends, until a row is reached.
            while cell < DEAD:
                number = (-2 - cell) >> 1
                if cell & 1:
                    count = np.int64(push_count[number])
                    if count == 0:
                        # The text so far is to be compared with those remembered: are there any?
                        below = stack
                        while below >= 0 and not return_kind[cells[2 * below + 1]] & REMEMBERS:
                            below = np.int64(cells[2 * below])
                        compares = remembered != 0
                        level = -1 - below
                        if below < 0:
                            while level < base_known and not return_kind[base[level] >> 2] & REMEMBERS:
                                level += 1
                            compares = fresh[levels[LEVEL_SIZE + BYTE] if depth > 1 else byte] == 0
                        else:
                            while below >= 0 and not return_kind[cells[2 * below + 1]] & SCOPE:
                                below = np.int64(cells[2 * below])
                            level = -1 - below
                        while below < 0 and level < base_known and not return_kind[base[level] >> 2] & SCOPE:
                            level += 1
                        if below < 0:
                            looked = max(looked, min(level + 1, base_depth))
                            if level >= base_known and level < base_depth:
                                needs = NEEDS_BASE
                                break
                            if level < base_depth and (base[level] & SEEN) == 0:
                                compares = remembered != 0
                            elif level < base_depth and compares:
                                needs = NEEDS_TEXT
                                break
                        if compares:
                            needs = NEEDS_TEXT
                            break
                    if top + count > cells_size:
                        needs = NEEDS_CELLS
                        break
                    place = np.int64(push_first[number])
                    for index in range(place, place + count):
                        cells[2 * top] = stack
                        cells[2 * top + 1] = push_returns[index]
                        stack = top
                        top += 1
                    calls += 1
                    if calls > MAX_CALLS_PER_BYTE:
                        needs = ENDLESS
                        break
                    cell = np.int64(push_row[number])
                    break
                if stack >= 0:
                    ret = np.int64(cells[2 * stack + 1])
                    flags = 0
                else:
                    level = -1 - stack
                    looked = max(looked, level + 1)
                    if level >= base_depth:
                        cell = np.int64(COMPLETE if consumed else DEAD)
                        break
                    if level >= base_known:
                        needs = NEEDS_BASE
                        break
                    ret = np.int64(base[level])
                    flags = ret & 3
                    ret >>= 2
                if return_kind[ret] & REMEMBERS:
                    # Certainly new: known of the innermost call, by the first byte; or a call made by this very token,
                    # the first, in a scope that remembers nothing.
                    new = False
                    if stack < 0:
                        new = (flags & INNERMOST) != 0 and fresh[levels[LEVEL_SIZE + BYTE] if depth > 1 else byte] != 0
                    elif not remembered:
                        below = np.int64(cells[2 * stack])
                        new = True
                        while below >= 0 and not return_kind[cells[2 * below + 1]] & SCOPE:
                            below = np.int64(cells[2 * below])
                        level = -1 - below
                        while below < 0 and level < base_depth:
                            looked = max(looked, level + 1)
                            if level >= base_known:
                                needs = NEEDS_BASE
                                break
                            if return_kind[base[level] >> 2] & SCOPE:
                                new = (base[level] & SEEN) == 0
                                break
                            level += 1
                        if needs != DONE:
                            break
                    if not new:
                        needs = NEEDS_TEXT
                        break
                    remembered = 1
                entry = np.int64(resume_first[ret])
                while entry >= 0 and resume_case[entry] != 2 * number:
                    entry = np.int64(resume_next[entry])
                if entry < 0:
                    control[SUBJECT], control[CASE] = ret, number
                    needs = NEEDS_RESUME
                    break
                stack = np.int64(cells[2 * stack]) if stack >= 0 else stack - 1
                cell = np.int64(resume_cell[entry])
            if needs != DONE or cell == DEAD:
                break
            row = cell
            if consumed:
                alive = True
                break
        if needs != DONE:
            break
        if alive and row >= 0 and row_high[row] > 0 and stack >= -base_depth:
            # A row of a set of strings: does one that is allowed here lie behind it?
            if stack >= 0:
                ret = np.int64(cells[2 * stack + 1])
            else:
                level = -1 - stack
                looked = max(looked, level + 1)
                if level >= base_known:
                    needs = NEEDS_BASE
                    break
                ret = np.int64(base[level] >> 2)
            place = np.int64(return_allowed[ret])
            if place >= 0:
                alive = allowed[place + row_high[row]] > allowed[place + row_low[row]]
        skip = np.int64((packed >> np.uint64(SKIP_SHIFT)) & np.uint64(SKIP_MASK))
        if not alive:
            node = skip
            continue
        piece = np.int64(NO_PIECE)
        model = np.int64(NO_MODEL)
        if skip - node > BIG and node < trie_size and row >= 0 and most < 0:
            model = np.int64(row_model[row]) if row < num_rows else np.int64(UNKNOWN_MODEL)
            if model == UNKNOWN_MODEL:
                control[SUBJECT] = row
                needs = NEEDS_MODEL
                break
            if model >= 0:
                number = np.int64(models[model * MODEL_SIZE + 256])
                place = np.searchsorted(big_nodes, node)
                piece = np.int64(piece_of[number, place])
                if piece == UNKNOWN_PIECE:
                    control[SUBJECT], control[CASE] = number, place
                    needs = NEEDS_PIECE
                    break
        token = np.int64(packed >> np.uint64(TOKEN_SHIFT))
        if token != NO_TOKEN:
            mask[token >> 5] |= np.uint32(1) << np.uint32(token & 31)
            control[FOUND] = 1
        here = depth * LEVEL_SIZE
        levels[here + ROW] = row
        levels[here + STACK] = stack
        levels[here + TOP] = top
        levels[here + REMEMBERED] = remembered
        levels[here + BYTE] = byte
        levels[here + LEAST], levels[here + MOST] = least, most
        node += 1
        if piece >= 0 and segments + 2 * MAX_EXCEPTIONS + 2 < MAX_SEGMENTS:
            control[FOUND] = 1
            waiting[2 * segments], waiting[2 * segments + 1] = skip, end
            segments = add_piece(
                *(models, model, trie, node, skip, mask, masks[piece], rests[piece], waiting, segments + 1),
                *(big_nodes, piece_of[np.int64(models[model * MODEL_SIZE + 256])], masks),
            )
            node = end
    control[NODE], control[END], control[SEGMENTS], control[LOOKED] = node, end, segments, looked
    return needs


@compiled
def add_piece(models, model, trie, first, last, mask, ready, rest, waiting, segments, big_nodes, pieces, masks):
    """Adds a piece of the mask for the tokens at the nodes `first` to `last`.

    The piece (`ready`, and its `rest` in the trie) is right but for the bytes in which the automaton's row differs from
    its model; the tokens that go on with such a byte are left to the walk. What is to be walked is added to `waiting`,
    behind `segments` others; returns how many there are then. The last three are of the slices: the big nodes, the
    pieces of the model's slice at each, and the pieces' masks.
    """
    differs = model * MODEL_SIZE
    for word in range(len(mask)):
        mask[word] |= ready[word]
    node = np.int64(rest[0])
    begun = node
    while node < rest[1]:
        skip = np.int64((trie[node] >> np.uint64(SKIP_SHIFT)) & np.uint64(SKIP_MASK))
        if models[differs + np.int64(trie[node] & np.uint64(BYTE_MASK))]:
            if begun < node:
                waiting[2 * segments], waiting[2 * segments + 1] = begun, node
                segments += 1
            begun = skip
        node = skip
    if begun < node:
        waiting[2 * segments], waiting[2 * segments + 1] = begun, node
        segments += 1
    node = np.int64(first)
    while node < last:
        skip = np.int64((trie[node] >> np.uint64(SKIP_SHIFT)) & np.uint64(SKIP_MASK))
        if models[differs + np.int64(trie[node] & np.uint64(BYTE_MASK))]:
            piece = np.int64(NO_PIECE)
            if skip - node > BIG:
                piece = np.int64(pieces[np.searchsorted(big_nodes, node)])
            if piece >= 0:
                # What the piece has of these tokens is there as a whole.
                for word in range(len(mask)):
                    mask[word] &= ~masks[piece, word]
            for below in range(node, skip if piece < 0 else node + 1):
                token = np.int64(trie[below] >> np.uint64(TOKEN_SHIFT))
                if token != NO_TOKEN:
                    mask[token >> 5] &= ~(np.uint32(1) << np.uint32(token & 31))
            waiting[2 * segments], waiting[2 * segments + 1] = node, skip
            segments += 1
        node = skip
    return segments

"""What running requests ask for of their tokens, brought to a GPU where it can draw these by itself.

A row is brought when its sequence enters the steps that run ahead; from then on the device counts and follows what it
draws. It cannot report logprobs, nor forbid words of several tokens, nor follow every grammar (`device_automata`): the
tokens of such requests are drawn by the host, from the logits of the same forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...kernels.sampling import SamplingRows
from ...kernels.token_mask import MAX_ENDINGS
from ...kernels.triton.logits import IN_PROMPT, MAX_EDITS, NEVER
from ...kernels.triton.paged_attention import send_arrays
from ...kernels.triton.request_state import RequestState
from ...kernels.triton.sampling_kernel import send_rows
from ..sampling_params import SamplingParams
from ..scheduling.request import Request
from .device_automata import DeviceAutomata
from .logits_processors import ending_ids, is_penalised, repetition_penalty


@dataclass(frozen=True, slots=True)
class Entering:
    """A sequence whose row the device does not know."""

    row: int
    request: Request
    token_ids: Sequence[int]
    """Come behind those of the request."""


@dataclass(slots=True)
class DeviceRows:
    """The rows of one `RequestState`."""

    state: RequestState
    automata: DeviceAutomata
    _fits: dict[Request, bool] = field(default_factory=dict)
    """Whether the device knows all that a request asks for but a grammar."""

    def can_draw(self, request: Request) -> bool:
        """Whether the device can draw the request's next token, now."""
        fits = self._fits.get(request)
        if fits is None:
            fits = self._fits[request] = request.params.logprobs is None and _edits(request) is not None
        guide = request.guide
        if not fits or guide is None:
            return fits
        return self.automata.has(guide) and len(guide.endings | guide.eos_as_text) <= MAX_ENDINGS

    def can_enter(self, request: Request, token_ids: Sequence[int]) -> bool:
        """The same for a request whose row is to be brought, with tokens that come to it."""
        if not self.can_draw(request):
            return False
        return request.guide is None or self.automata.state_of(request, request.guide, token_ids) is not None

    def forget(self, request: Request) -> None:
        self._fits.pop(request, None)
        self.automata.forget(request)

    def bring(self, entering: Sequence[Entering], parameters: SamplingRows) -> None:
        """Tell the device of rows whose sequences can enter; parameters: theirs, in their order."""
        if not entering:
            return
        state, device = self.state, self.state.states.device
        rows = np.array([item.row for item in entering], np.int64)
        requests = [item.request for item in entering]
        penalties = np.array([_penalties(request.params) for request in requests], np.float32)
        counts, edit_rows, edits = _all_edits(entering)
        masked, words = _all_words(entering, state.mask_words.shape[1])
        mask_of = np.full(len(entering), -1, np.int32)
        mask_of[masked] = rows[masked]
        states = [_state(item, self.automata) for item in entering]
        endings = _all_endings(requests)
        sent = send_arrays(
            [
                *(rows, penalties, np.array(counts, np.int32), edit_rows, *edits),
                *(rows[masked], words, mask_of, np.array(states, np.int32), endings),
            ],
            device,
        )
        at, state.penalties[at], state.edits.count[at], edit_at = sent[0], sent[1], sent[2], sent[3]
        if len(edit_rows):
            width = edits[0].shape[1]
            state.edits.tokens[edit_at, :width], state.edits.values[edit_at, :width] = sent[4], sent[5]
            state.edits.begin[edit_at, :width] = sent[6]
        if len(masked):
            state.mask_words[sent[7]] = sent[8]
        state.mask_of[at], state.states[at], state.endings[at] = sent[9:]
        state.sampling.set(at, send_rows(parameters, device))
        self._bring_seen([item for item in entering if is_penalised(item.request.params)])

    def _bring_seen(self, entering: Sequence[Entering]) -> None:
        """Tell which tokens each of them has seen."""
        if not entering:
            return
        seen = self.state.seen
        found = [_seen(item) for item in entering]
        rows = np.array([item.row for item in entering], np.int64)
        places = [row * seen.shape[1] + ids for row, (ids, _) in zip(rows, found, strict=True)]
        entries = [entries for _, entries in found]
        at, place, entry = send_arrays([rows, np.concatenate(places), np.concatenate(entries)], seen.device)
        seen[at] = 0
        seen.view(-1)[place] = entry


def _penalties(params: SamplingParams) -> tuple[float, float, float]:
    return repetition_penalty(params), params.frequency_penalty, params.presence_penalty


def _seen(item: Entering) -> tuple[np.ndarray, np.ndarray]:
    """The distinct tokens of a sequence, and what `RequestState.seen` says of them."""
    num_prompt = item.request.num_prompt_tokens
    ids, where = np.unique(np.array([*item.request.token_ids, *item.token_ids]), return_inverse=True)
    entries = np.bincount(where[num_prompt:], minlength=len(ids)).astype(np.int32)
    entries[where[:num_prompt]] |= np.int32(IN_PROMPT)
    return ids, entries


def _state(item: Entering, automata: DeviceAutomata) -> int:
    guide = item.request.guide
    state = None if guide is None else automata.state_of(item.request, guide, item.token_ids)
    return -1 if state is None else state


def _edits(request: Request) -> dict[int, tuple[float, int]] | None:
    """By token: what is added to its logit, and from which output token on it may come; None where that says not all.

    The rules are those of `logits_processors`; the few tokens that a grammar adds later always find room.
    """
    params, bad_words = request.params, request.message.bad_words_token_ids
    begin = dict.fromkeys(ending_ids(request), min(params.min_tokens, NEVER))
    begin |= {word[-1]: NEVER for word in bad_words}
    if request.guide is not None:
        begin |= dict.fromkeys(request.guide.eos_as_text - request.guide.endings, NEVER)
    bias = params.logit_bias or {}
    if len(begin.keys() | bias.keys()) > MAX_EDITS - MAX_ENDINGS or any(len(word) > 1 for word in bad_words):
        return None
    return {token_id: (bias.get(token_id, 0.0), begin.get(token_id, 0)) for token_id in begin.keys() | bias.keys()}


def _all_edits(entering: Sequence[Entering]) -> tuple[list[int], np.ndarray, list[np.ndarray]]:
    """How many each row has; the rows that have any, and the tokens, values and beginnings of these."""
    found = [(item.row, _edits(item.request) or {}) for item in entering]
    counts = [len(edits) for _, edits in found]
    with_edits = [(row, edits) for row, edits in found if edits]
    shape = (len(with_edits), max(counts))
    tokens, values, begin = np.zeros(shape, np.int32), np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    for number, (_, edits) in enumerate(with_edits):
        tokens[number, : len(edits)] = list(edits)
        values[number, : len(edits)], begin[number, : len(edits)] = zip(*edits.values(), strict=True)
    return counts, np.array([row for row, _ in with_edits], np.int64), [tokens, values, begin]


def _all_words(entering: Sequence[Entering], num_words: int) -> tuple[list[int], np.ndarray]:
    """The numbers of those that may choose from some tokens alone, and the masks of these."""
    masked = [number for number, item in enumerate(entering) if item.request.params.allowed_token_ids]
    allowed = np.zeros((len(masked), 32 * num_words), np.uint8)
    for row, number in zip(allowed, masked, strict=True):
        row[entering[number].request.params.allowed_token_ids] = 1
    return masked, np.packbits(allowed, -1, bitorder="little").view(np.int32)


def _all_endings(requests: Sequence[Request]) -> np.ndarray:
    endings = np.full((len(requests), MAX_ENDINGS), -1, np.int32)
    for row, request in zip(endings, requests, strict=True):
        if request.guide is not None:
            row[: len(request.guide.endings)] = list(request.guide.endings)
    return endings

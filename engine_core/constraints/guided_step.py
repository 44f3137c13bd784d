"""The masks of a step: what the guides of its rows say before and after a token is chosen for each.

The model runner calls `prepare` while the device computes, samples the rows that are ready, and tells `follow` what
was sampled.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..scheduling.request import Request
from .guided_decoding import READY, Guide, Move

STEP_SECONDS = 0.004
"""Time for all masks of a step together; who is not ready then sits the step out."""
LEAST_SECONDS = 0.002
"""Time for each mask that is tried: shorter tries bring too little forward."""
PATIENT_SECONDS = 0.008
"""Time for a mask that is late again and again, one in a step: nearly all work goes on where it stopped, but what is
done in one piece must come to its end too."""


@dataclass(slots=True)
class StepMasks:
    """What the guides of a step's requests say."""

    moves: list[Move | None]
    """By request; None for requests without a guide."""
    row: list[int]
    """The mask of each request that is ready; -1 without a guide."""
    words: np.ndarray
    """uint32, a row a mask. Requests that may choose from the same tokens share one."""


class GuidedStep:
    """The masks of a step, for as many rows as an engine has."""

    def __init__(self, vocab_size: int, max_num_seqs: int) -> None:
        self._num_words = -(-vocab_size // 32)
        self._max_num_seqs = max_num_seqs
        self._words = np.zeros((0, 0), np.uint32)
        self._masks: list[np.ndarray] = []
        """The rows of `_words`, as long as a grammar's masks."""
        self._turn = 0

    def prepare(self, requests: Sequence[Request]) -> StepMasks:
        """Ask each request's guide what may come next.

        The time of the step is shared: each takes at most an equal part of what is left (or LEAST_SECONDS), and who
        comes first changes. When it is over, the others are not asked at all, so that no number of new masks holds up
        the step.
        """
        self._make_room(len(requests))
        step = StepMasks([None] * len(requests), [-1] * len(requests), self._words)
        places: dict[object, int] = {}
        unknown: list[tuple[int, Guide]] = []
        for i, request in enumerate(requests):
            guide = request.guide
            if guide is None:
                continue
            known = guide.known_mask(request)
            if known is None:
                unknown.append((i, guide))
                continue
            key = (id(known.known), known.endings, known.eos_as_text)
            place = places.get(key)
            if place is None:
                place = places[key] = len(places)
                known.fill(self._masks[place])
            step.row[i], step.moves[i] = place, READY
        self._find_unknown(requests, unknown, len(places), step)
        return step

    def _find_unknown(
        self, requests: Sequence[Request], unknown: list[tuple[int, Guide]], num_filled: int, step: StepMasks
    ) -> None:
        """Let the guides work whose next masks are not known, behind the masks that are."""
        self._turn += 1
        end = time.perf_counter() + STEP_SECONDS
        is_patient = False
        for number in range(len(unknown)):
            i, guide = unknown[(number + self._turn) % len(unknown)]
            left = end - time.perf_counter()
            if left <= 0 and number:
                step.moves[i] = guide.sit_out()
                continue
            seconds = min(STEP_SECONDS, max(LEAST_SECONDS, left / (len(unknown) - number)))
            if guide.is_stuck and not is_patient:
                is_patient, seconds = True, PATIENT_SECONDS
            step.row[i] = num_filled + number
            step.moves[i] = guide.before_sampling(requests[i], self._masks[num_filled + number], seconds)

    def follow(self, requests: Sequence[Request], token_ids: Sequence[int]) -> list[Move | None]:
        """Tell the guides what was sampled, -1 for no token; what they say then, None for nothing."""
        moves: list[Move | None] = [None] * len(requests)
        unknown: list[tuple[int, Guide]] = []
        for i, (request, token_id) in enumerate(zip(requests, token_ids, strict=True)):
            guide = request.guide
            if guide is not None and not guide.follow_known(token_id):
                unknown.append((i, guide))
        end = time.perf_counter() + STEP_SECONDS
        for number, (i, guide) in enumerate(unknown):
            token_id, left = token_ids[i], end - time.perf_counter()
            if token_id < 0:
                moves[i] = guide.without_a_token()
            elif left <= 0 and number:
                moves[i] = guide.put_off()
            else:
                moves[i] = guide.after_sampling(token_id, max(0.0, left) / (len(unknown) - number))
        return moves

    def _make_room(self, num_rows: int) -> None:
        if len(self._words) < num_rows:
            num_rows = min(self._max_num_seqs, max(8, 2 * num_rows))
            # Pairs of words: the sampling kernel reads 64 bits at a time.
            self._words = np.zeros((num_rows, self._num_words + self._num_words % 2), np.uint32)
            self._masks = [row[: self._num_words] for row in self._words]

"""An encoder (BERT, RoBERTa, DistilBERT, MPNet, …) of transformers, run over texts of many lengths without padding.

Where the model lets its attention be replaced, texts of any lengths are one sequence: every layer but attention then
sees a flat batch of tokens. Whether that gives what the model alone gives is found out when it is loaded, by trying; a
model that it does not fit runs once for each length among the texts.

On a CPU the texts of a step are dealt out to threads, each of which runs the model on its share: unlike threads that
split each operation, they do not wait for each other, which is what a busy machine makes expensive.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

from ..errors import UnsupportedModelError
from ..model.device import Device
from .sequence_attention import SequenceAttention
from .text_group import TextGroup

MIN_SHARE_TOKENS = 128
"""A thread of its own does not pay for less."""
MAX_SHARE_TOKENS = 512
"""More only makes a thread leave its cache, and the last thread end later."""

_TRIAL_LENGTHS = (3, 9, 40, 160)
"""The last is beyond the windows of local attention that encoders have."""
_TRIAL_COUNT = 2


class EncoderModel:
    """Runs an encoder, with or without a classification head."""

    def __init__(self, model: Any, device: Device, *, position_offset: int, max_model_len: int) -> None:
        """model: as transformers loaded it, on the device; position_offset: number of the first token's position."""
        self._model = model
        self._base = model.base_model
        self._has_head = self._base is not model
        self._device = device
        self._position_offset = position_offset
        takes = inspect.signature(model.forward).parameters
        num_types = getattr(model.config, "type_vocab_size", 0) or 0
        self._takes_types = "token_type_ids" in takes and num_types > 1
        self._attention = SequenceAttention()
        self._finished_base = _FinishedBase(getattr(self._base, "pooler", None))
        num_threads = device.threads.size if device.is_cpu else 1
        self._num_threads = num_threads
        self._workers = ThreadPoolExecutor(num_threads, "encoder", initializer=torch.set_num_threads, initargs=(1,))
        takes_positions = "position_ids" in inspect.signature(self._base.forward).parameters
        self.is_flat = takes_positions and self._make_flat(max_model_len)
        """Whether texts of any lengths are computed in one go."""

    def run(self, groups: Sequence[TextGroup]) -> Iterator[tuple[TextGroup, torch.Tensor]]:
        """Parts of the groups, each with the states of its last layer or what the classification head makes of them."""
        shares = self._shares(groups)
        if len(shares) == 1:
            self._device.prepare(sum(group.num_tokens for group in groups))
            yield from self._run_share(shares[0])
            return
        for results in self._workers.map(self._run_share, shares):
            yield from results

    def _shares(self, groups: Sequence[TextGroup]) -> list[list[TextGroup]]:
        """The texts, dealt out to the threads in shares of about equal numbers of tokens."""
        num_tokens = sum(group.num_tokens for group in groups)
        if self._num_threads == 1 or num_tokens < 2 * MIN_SHARE_TOKENS:
            return [list(groups)]
        rounds = -(-num_tokens // (self._num_threads * MAX_SHARE_TOKENS))
        capacity = num_tokens / (rounds * self._num_threads)
        shares: list[list[TextGroup]] = [[]]
        filled = 0
        for group in groups:
            count, length = group.shape
            start = 0
            while start < count:
                room = int((capacity * len(shares) - filled) / length + 0.5)
                taken = min(count - start, max(room, not shares[-1]))
                if taken:
                    shares[-1].append(group.part(start, start + taken))
                    filled += taken * length
                    start += taken
                else:
                    shares.append([])
        return shares

    @torch.inference_mode()
    def _run_share(self, groups: Sequence[TextGroup]) -> list[tuple[TextGroup, torch.Tensor]]:
        if not self.is_flat:
            return [(group, self._run_alone(group)) for group in groups]
        states = self._flat_states(groups)
        if not self._has_head:
            return list(zip(groups, states, strict=True))
        return [(group, self._head(group, state)) for group, state in zip(groups, states, strict=True)]

    def _run_alone(self, group: TextGroup) -> torch.Tensor:
        """The plain forward of texts of one length."""
        output = self._model(input_ids=group.token_ids, **self._types(group.token_type_ids))
        return output.logits if self._has_head else output.last_hidden_state

    def _flat_states(self, groups: Sequence[TextGroup]) -> list[torch.Tensor]:
        """States of the last layer from one forward over all tokens."""
        device = self._device.torch_device
        self._attention.set_batch([group.shape for group in groups])
        token_ids = torch.cat([group.token_ids.flatten() for group in groups])
        places = [torch.arange(length, device=device).repeat(count) for count, length in (g.shape for g in groups)]
        positions = torch.cat(places) + self._position_offset
        types = None
        if any(group.token_type_ids is not None for group in groups):
            given = [torch.zeros_like(g.token_ids) if g.token_type_ids is None else g.token_type_ids for g in groups]
            types = torch.cat([values.flatten() for values in given])[None]
        output = self._base(input_ids=token_ids[None], position_ids=positions[None], **self._types(types))
        parts = output.last_hidden_state[0].split([group.num_tokens for group in groups])
        return [part.view(*group.shape, -1) for group, part in zip(groups, parts, strict=True)]

    def _head(self, group: TextGroup, states: torch.Tensor) -> torch.Tensor:
        """The classification head's output: the model runs on a base that hands out the states that it is given."""
        self._finished_base.set_states(states)
        return self._model(input_ids=group.token_ids).logits

    def _types(self, token_type_ids: torch.Tensor | None) -> dict[str, torch.Tensor]:
        return {"token_type_ids": token_type_ids} if self._takes_types and token_type_ids is not None else {}

    @torch.inference_mode()
    def _make_flat(self, max_model_len: int) -> bool:
        """Put our attention into the model, and the finished base under its head, if that changes nothing."""
        model, config, base_name = self._model, self._model.config, self._model.base_model_prefix
        own_attention = config._attn_implementation
        groups = self._trial_groups(max_model_len)
        expected = [self._run_alone(group) for group in groups]
        model.set_attn_implementation(self._attention.name)
        if self._has_head:
            setattr(model, base_name, self._finished_base)
        if config._attn_implementation == self._attention.name and self._agrees(groups, expected):
            return True
        if self._has_head:
            setattr(model, base_name, self._base)
        model.set_attn_implementation(own_attention)
        return False

    def _agrees(self, groups: list[TextGroup], expected: list[torch.Tensor]) -> bool:
        self.is_flat = True
        try:
            results = [result for _, result in self._run_share(groups)]
        except (UnsupportedModelError, RuntimeError, TypeError, ValueError, IndexError):
            return False
        tolerance = 1e-4 if expected[0].dtype == torch.float32 else 0.05
        return all(
            result.shape == wanted.shape
            and bool((result - wanted).abs().max() <= tolerance * wanted.abs().max().clamp(min=1e-3))
            for result, wanted in zip(results, expected, strict=True)
        )

    def _trial_groups(self, max_model_len: int) -> list[TextGroup]:
        generator = torch.Generator().manual_seed(0)
        vocab_size = self._base.get_input_embeddings().num_embeddings
        # Not the first ids: among them is the padding, which some models look for.
        first = min(vocab_size // 2, 1_000)
        lengths = dict.fromkeys(min(length, max_model_len) for length in _TRIAL_LENGTHS)
        shapes = [(_TRIAL_COUNT, length) for length in lengths]
        ids = [torch.randint(first, vocab_size, shape, generator=generator) for shape in shapes]
        return [TextGroup([], token_ids.to(self._device.torch_device)) for token_ids in ids]


class _FinishedBase(nn.Module):
    """Stands in for the base of a model with a head: gives states that are known already."""

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self._pooler = pooler
        self._given = threading.local()
        """Each thread has states of its own."""

    def set_states(self, states: torch.Tensor) -> None:
        """What the next forward of this thread gives: [count, length, hidden_size]."""
        self._given.states = states

    def forward(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """The states, and what the pooler of the base makes of them."""
        states = self._given.states
        pooled = None if self._pooler is None else self._pooler(states)
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=states, pooler_output=pooled)

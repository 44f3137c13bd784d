"""Decode steps of one batch size, with all that they need on the device: forward, draw, and the next step's input.

On CUDA the launches of a step are recorded once as a graph and then played, without Python between them; elsewhere the
same launches run one by one. The host only brings new sequences and blocks, and takes tokens when it likes: it may be a
step behind, as the engine is (`decode_ahead`). `bench/gpu.py` measures the model with it.
"""

from __future__ import annotations

from typing import Any

import torch

from ...kernels.triton.decode_attention import DecodeScratch
from ...kernels.triton.decode_state import DecodeState, advance_launch
from ...kernels.triton.paged_attention import DeviceBatch
from ...kernels.triton.request_state import RequestState, choose_launches
from .attention import AttentionLayers

WARM_UP_STEPS = 2
"""Before a graph is recorded: kernels are compiled and libraries take their memory."""


class DecodeSteps:
    """The steps of up to `batch_size` sequences of a model whose layers `gpu_surgery` has replaced."""

    def __init__(
        self,
        model: Any,
        attention: AttentionLayers,
        requests: RequestState,
        batch_size: int,
        max_model_len: int,
        *,
        split: int,
        block_size: int,
        device: torch.device,
        use_graph: bool = True,
        graph_pool: Any = None,
    ) -> None:
        """requests: what the steps of all batch sizes share; split: see `decode_attention.split_size`; use_graph: where
        there is CUDA; graph_pool: memory that the graphs of several batch sizes share, of which one runs at a time.
        """
        self._model = model
        self._attention = attention
        self._requests = requests
        self._block_size = block_size
        self._use_graph = use_graph and device.type == "cuda"
        self._graph_pool = graph_pool
        self._graph: torch.cuda.CUDAGraph | None = None
        self.batch_size = batch_size
        self.state = DecodeState.empty(batch_size, -(-max_model_len // block_size), device)
        self.request_rows = torch.full((batch_size,), requests.nobody, dtype=torch.int32, device=device)
        """int32 [batch_size]: where the request of each row stands in `requests`; nobody's where the host draws."""
        self.tokens = torch.full((batch_size,), -1, dtype=torch.int64, device=device)
        """int64 [batch_size]: what the last step drew."""
        self.logits = requests.logits[:batch_size]
        """float32 [batch_size, vocab_size], of the last step; as the model gives them in nobody's rows."""
        self._batch = self._make_batch(-(-max_model_len // split), split)

    def run(self) -> None:
        """One step of the sequences in `state`, which then holds the next one."""
        if not self._use_graph:
            self._step()
            return
        self.prepare()
        assert self._graph is not None
        self._graph.replay()

    def prepare(self) -> None:
        """Record the graph, if there is to be one and it has not been recorded: takes a second or so."""
        if self._use_graph and self._graph is None:
            self._record()

    def _step(self) -> None:
        state = self.state
        self._attention.set_batch(self._batch)
        output = self._model(
            input_ids=state.token_ids[None], position_ids=state.positions[None], use_cache=False, logits_to_keep=0
        )
        self.logits.copy_(output.logits[0])
        for launch in choose_launches(self.tokens, self.logits, self.request_rows, self._requests):
            launch.run()
        position = self._requests.sampling.position
        advance_launch(state, self.tokens, self.request_rows, position, self._block_size).run()

    def _record(self) -> None:
        """Record a step. The rows are without sequences meanwhile, so that nothing is written or moved on."""
        held = (self.state.num_keys, self.state.slots, self.request_rows)
        kept = [tensor.clone() for tensor in held]
        for tensor, nothing in zip(held, (0, -1, self._requests.nobody), strict=True):
            tensor.fill_(nothing)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._graph_pool):
            self._step()
        self._graph = graph
        for tensor, before in zip(held, kept, strict=True):
            tensor.copy_(before)

    def _make_batch(self, num_splits: int, split: int) -> DeviceBatch:
        """The attention's view of the state: every row computes one token."""
        device, batch_size = self.tokens.device, len(self.tokens)
        nothing = torch.empty(0, dtype=torch.int32, device=device)
        # The scratch is this batch's own: a graph holds its address.
        num_heads = max(layer.num_heads for layer in self._attention.geometry.values())
        value_dim = max(layer.value_dim for layer in self._attention.geometry.values())
        shape = (batch_size, num_heads, num_splits)
        scratch = DecodeScratch(torch.empty(*shape, value_dim, device=device), torch.empty(*shape, 2, device=device))
        return DeviceBatch(
            query_start=torch.arange(batch_size + 1, dtype=torch.int32, device=device),
            num_keys=self.state.num_keys,
            block_table=self.state.block_table,
            slots=self.state.slots,
            decode_seqs=torch.arange(batch_size, dtype=torch.int32, device=device),
            item_seq=nothing,
            item_start=nothing,
            tokens_per_item=1,
            num_splits=num_splits,
            split=split,
            scratch=scratch,
        )

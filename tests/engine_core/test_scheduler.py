"""The scheduler through the engine core, with a model that checks every block it is given (see
`paged_model`).
"""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import EngineCore
from zqserve.engine_core.messages import EngineOutput, EngineRequest
from zqserve.engine_core.sampling_params import SamplingParams

from .paged_model import EOS, PagedModel, generate_alone

COMMON_PROMPT = [7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 3, 5, 8, 9, 10]


def make_engine(
    *,
    num_blocks: int = 64,
    block_size: int = 4,
    max_model_len: int = 128,
    num_lookahead_tokens: int = 0,
    **config: object,
) -> tuple[EngineCore, PagedModel]:
    engine_config = EngineConfig(model="", **config)  # pyright: ignore[reportArgumentType]
    model = PagedModel(
        num_blocks=num_blocks,
        block_size=block_size,
        max_model_len=max_model_len,
        max_num_batched_tokens=engine_config.max_num_batched_tokens or 512,
        max_num_seqs=engine_config.max_num_seqs,
        num_lookahead_tokens=num_lookahead_tokens,
    )
    return EngineCore(model, engine_config), model


def make_request(key: int, prompt: list[int], *, priority: int = 0, salt: str = "", **params: object) -> EngineRequest:
    return EngineRequest(
        key=key,
        prompt_token_ids=prompt,
        params=SamplingParams(**params),  # pyright: ignore[reportArgumentType]
        eos_token_ids=[EOS],
        priority=priority,
        cache_salt=salt,
    )


def run_to_end(engine: EngineCore, max_steps: int = 5000) -> dict[int, list[EngineOutput]]:
    outputs: dict[int, list[EngineOutput]] = defaultdict(list)
    for _ in range(max_steps):
        if not engine.has_unfinished():
            return outputs
        collect(outputs, engine.step())
    raise AssertionError(f"not all requests ended within {max_steps} steps")


def collect(outputs: dict[int, list[EngineOutput]], step_outputs: dict[bytes, list[EngineOutput]]) -> None:
    for client_outputs in step_outputs.values():
        for output in client_outputs:
            outputs[output.key].append(output)


def prompt_logprob_positions(outputs: list[EngineOutput]) -> list[float]:
    """The positions, which the model wrote into the entries."""
    return [-entry.logprobs[0] for output in outputs for entry in output.prompt_logprobs or []]


class SchedulerMachine(RuleBasedStateMachine):
    """Arrivals, aborts and failures in any order, on pools and budgets so small that everything gets tight."""

    @initialize(
        block_size=st.integers(1, 4),
        num_blocks=st.integers(4, 24),
        budget=st.integers(1, 24),
        max_num_seqs=st.integers(1, 5),
        policy=st.sampled_from(["fcfs", "priority"]),
        prefix_caching=st.sampled_from([True, True, False]),
        lookahead=st.integers(0, 1),
    )
    def start(
        self,
        block_size: int,
        num_blocks: int,
        budget: int,
        max_num_seqs: int,
        policy: str,
        prefix_caching: bool,
        lookahead: int,
    ) -> None:
        self.engine, self.model = make_engine(
            num_blocks=num_blocks,
            block_size=block_size,
            max_model_len=min(40, num_blocks * block_size),
            max_num_batched_tokens=budget,
            max_num_seqs=max_num_seqs,
            scheduling_policy=policy,
            enable_prefix_caching=prefix_caching,
            num_lookahead_tokens=lookahead,
        )
        self.by_priority = policy == "priority"
        self.requests: dict[int, EngineRequest] = {}
        self.outputs: dict[int, list[EngineOutput]] = defaultdict(list)
        self.aborted: set[int] = set()

    @rule(
        num_common=st.integers(0, len(COMMON_PROMPT)),
        own=st.lists(st.integers(3, 6), max_size=4),
        priority=st.integers(-1, 1),
        salt=st.sampled_from(["", "", "pepper"]),
        max_tokens=st.sampled_from([0, 1, 2, 5, 13, 30]),
        min_tokens=st.sampled_from([0, 0, 3]),
        ignore_eos=st.booleans(),
        stop_token_ids=st.lists(st.integers(0, 63), max_size=3),
        prompt_logprobs=st.sampled_from([None, None, 1]),
        copies=st.integers(1, 3),
    )
    def add(
        self,
        num_common: int,
        own: list[int],
        priority: int,
        salt: str,
        max_tokens: int,
        min_tokens: int,
        ignore_eos: bool,
        stop_token_ids: list[int],
        prompt_logprobs: int | None,
        copies: int,
    ) -> None:
        for _ in range(copies):
            request = make_request(
                len(self.requests),
                (COMMON_PROMPT[:num_common] + own)[: self.model.max_model_len - 1] or [3],
                priority=priority,
                salt=salt,
                max_tokens=max_tokens,
                min_tokens=min(min_tokens, max_tokens),
                ignore_eos=ignore_eos,
                stop_token_ids=stop_token_ids,
                prompt_logprobs=prompt_logprobs,
                logprobs=0,
            )
            self.requests[request.key] = request
            self.engine.add_request(request)

    @rule(data=st.data())
    @precondition(lambda self: self.requests)
    def abort(self, data: st.DataObject) -> None:
        keys = data.draw(st.lists(st.sampled_from(sorted(self.requests)), max_size=3))
        self.aborted.update(key for key in keys if not self.is_finished(key))
        self.engine.abort(b"", keys)

    @rule(num_steps=st.integers(1, 6))
    def step(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.collect(self.engine.step())

    @rule()
    @precondition(lambda self: self.engine.has_unfinished())
    def step_that_fails(self) -> None:
        self.model.fail_next_step = True
        self.collect(self.engine.step())

    @rule()
    @precondition(lambda self: self.engine.has_unfinished())
    def step_in_which_one_request_fails(self) -> None:
        self.model.fail_next_request = True
        self.collect(self.engine.step())

    @rule()
    def reset_prefix_cache(self) -> None:
        self.engine.reset_prefix_cache()

    @invariant()
    def no_block_leaks(self) -> None:
        num_held = round(self.engine.stats().kv_cache_usage * self.model.num_blocks)
        assert num_held == self.model.num_held_blocks()

    @invariant()
    def the_accounts_are_in_order(self) -> None:
        self.engine.check()

    @invariant()
    def requests_of_one_priority_start_in_order_of_arrival(self) -> None:
        started: dict[int, int] = {}
        for request in self.model.started:
            priority = request.message.priority if self.by_priority else 0
            assert request.sequence_number > started.get(priority, -1)
            started[priority] = request.sequence_number

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        for key, outputs in run_to_end(self.engine).items():
            self.outputs[key] += outputs
        assert self.engine.stats().kv_cache_usage == 0
        assert not self.model.live
        for key in self.requests:
            if key not in self.aborted:
                self.check_finished(key)

    def collect(self, outputs: dict[bytes, list[EngineOutput]]) -> None:
        for output in outputs.get(b"", []):
            assert not self.is_finished(output.key)
            assert output.key not in self.aborted
            self.outputs[output.key].append(output)

    def is_finished(self, key: int) -> bool:
        return bool(self.outputs[key]) and self.outputs[key][-1].finish_reason is not None

    def check_finished(self, key: int) -> None:
        request, outputs = self.requests[key], self.outputs[key]
        token_ids = [token_id for output in outputs for token_id in output.token_ids]
        expected, finish_reason, stop_reason = generate_alone(request, self.model.max_model_len)
        last = outputs[-1]
        if last.finish_reason == "error":
            assert token_ids == expected[: len(token_ids)]
            return
        assert (token_ids, last.finish_reason, last.stop_reason) == (expected, finish_reason, stop_reason)
        assert all(output.finish_reason is None for output in outputs[:-1])
        assert [output.queue_seconds is not None for output in outputs] == [True] + [False] * (len(outputs) - 1)
        logprobs = [entry.token_ids[0] for output in outputs for entry in output.logprobs or []]
        assert logprobs == token_ids
        if request.params.prompt_logprobs is not None:
            assert prompt_logprob_positions(outputs) == list(range(1, len(request.prompt_token_ids)))


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)


@given(data=st.data(), block_size=st.integers(1, 4), num_blocks=st.integers(6, 16), budget=st.integers(3, 20))
@settings(max_examples=150, deadline=None)
def test_twelve_requests_on_a_tiny_pool_end_as_if_alone(
    data: st.DataObject, block_size: int, num_blocks: int, budget: int
) -> None:
    engine, model = make_engine(
        num_blocks=num_blocks,
        block_size=block_size,
        max_model_len=num_blocks * block_size,
        max_num_batched_tokens=budget,
        max_num_seqs=6,
        scheduling_policy=data.draw(st.sampled_from(["fcfs", "priority"])),
    )
    requests: list[EngineRequest] = []
    outputs: dict[int, list[EngineOutput]] = defaultdict(list)
    for key in range(12):
        num_common = data.draw(st.integers(1, min(len(COMMON_PROMPT), num_blocks * block_size - 2)))
        request = make_request(
            key,
            [*COMMON_PROMPT[:num_common], data.draw(st.integers(3, 5))],
            priority=data.draw(st.integers(0, 2)),
            max_tokens=data.draw(st.integers(1, 40)),
            ignore_eos=True,
            prompt_logprobs=data.draw(st.sampled_from([None, None, 0])),
        )
        requests.append(request)
        engine.add_request(request)
        for _ in range(data.draw(st.sampled_from([0, 0, 1, 3]))):
            collect(outputs, engine.step())
    for key, last_outputs in run_to_end(engine).items():
        outputs[key] += last_outputs
    event(f"preemptions: {min(engine.stats().num_preemptions, 5)}")
    for request in requests:
        token_ids = [token_id for output in outputs[request.key] for token_id in output.token_ids]
        assert token_ids == generate_alone(request, model.max_model_len)[0]
        if request.params.prompt_logprobs is not None:
            assert prompt_logprob_positions(outputs[request.key]) == list(range(1, len(request.prompt_token_ids)))
    assert engine.stats().kv_cache_usage == 0


def test_a_burst_with_one_prompt_computes_the_prompt_once_in_one_step() -> None:
    engine, model = make_engine()
    for key in range(8):
        engine.add_request(make_request(key, COMMON_PROMPT, max_tokens=3, ignore_eos=True))
    outputs = run_to_end(engine)
    # 20 tokens are 5 blocks; the others reuse 4 of them, since a last token must be computed for its logits.
    assert model.steps[0] == {0: 20} | dict.fromkeys(range(1, 8), 4)
    assert [outputs[key][0].num_cached_tokens for key in range(8)] == [0] + [16] * 7
    assert engine.stats().prefix_cache_hits == 16 * 7
    assert engine.stats().prefix_cache_queries == 20 * 8


def test_a_prefix_is_found_again_after_its_request_ended_and_not_after_a_reset() -> None:
    engine, model = make_engine()
    for key in range(3):
        if key == 2:
            engine.reset_prefix_cache()
        engine.add_request(make_request(key, COMMON_PROMPT, max_tokens=1))
        run_to_end(engine)
    assert model.steps == [{0: 20}, {1: 4}, {2: 20}]


def test_the_next_turn_of_a_conversation_finds_prompt_and_answer_in_the_cache() -> None:
    engine, model = make_engine()
    first = make_request(0, COMMON_PROMPT[:6], max_tokens=11, ignore_eos=True)
    engine.add_request(first)
    run_to_end(engine)
    conversation = COMMON_PROMPT[:6] + generate_alone(first, 128)[0]
    engine.add_request(make_request(1, [*conversation, 3, 4], max_tokens=1))
    run_to_end(engine)
    # Of the 17 tokens the last was never fed back, so 16 have their keys and values: 4 blocks.
    assert model.steps[-1] == {1: 3}


def test_requests_of_different_salts_share_nothing() -> None:
    engine, model = make_engine()
    for key, salt in enumerate(["", "a", "b", "a"]):
        engine.add_request(make_request(key, COMMON_PROMPT, salt=salt, max_tokens=1))
    run_to_end(engine)
    assert model.steps[0] == {0: 20, 1: 20, 2: 20, 3: 4}


def test_without_prefix_caching_every_prompt_is_computed() -> None:
    engine, model = make_engine(enable_prefix_caching=False)
    for key in range(2):
        engine.add_request(make_request(key, COMMON_PROMPT, max_tokens=1))
    run_to_end(engine)
    assert model.steps == [{0: 20, 1: 20}]
    assert engine.stats().prefix_cache_queries == 0


def test_prompt_logprobs_compute_the_whole_prompt_though_it_is_cached_and_leave_it_to_others() -> None:
    engine, model = make_engine()
    engine.add_request(make_request(0, COMMON_PROMPT, max_tokens=1))
    engine.add_request(make_request(1, COMMON_PROMPT, max_tokens=1, prompt_logprobs=1))
    run_to_end(engine)
    engine.reset_prefix_cache()
    engine.add_request(make_request(2, COMMON_PROMPT, max_tokens=1, prompt_logprobs=1))
    engine.add_request(make_request(3, COMMON_PROMPT, max_tokens=1))
    run_to_end(engine)
    assert model.steps == [{0: 20, 1: 20}, {2: 20, 3: 4}]


def test_a_long_prompt_is_computed_in_chunks_beside_running_requests() -> None:
    engine, model = make_engine(max_num_batched_tokens=8)
    engine.add_request(make_request(0, [3, 4], max_tokens=6, ignore_eos=True))
    engine.step()
    engine.add_request(make_request(1, COMMON_PROMPT, max_tokens=2, ignore_eos=True))
    run_to_end(engine)
    assert model.steps[:5] == [{0: 2}, {0: 1, 1: 7}, {0: 1, 1: 7}, {0: 1, 1: 6}, {0: 1, 1: 1}]


def test_the_latest_request_is_preempted_and_is_the_first_to_come_back() -> None:
    engine, model = make_engine(num_blocks=8, max_model_len=32)
    requests = [
        make_request(key, [10 + key] * num_tokens, max_tokens=max_tokens, ignore_eos=True)
        for key, (num_tokens, max_tokens) in enumerate([(7, 16), (7, 16), (12, 1)])
    ]
    for request in requests:
        engine.add_request(request)
    outputs = run_to_end(engine)
    assert engine.stats().num_preemptions == 1
    came_back = next(
        index for index in range(1, len(model.steps)) if 1 in model.steps[index] and 1 not in model.steps[index - 1]
    )
    # Request 2 waited already when request 1 was preempted.
    assert all(2 not in step for step in model.steps[:came_back])
    for request in requests:
        token_ids = [token_id for output in outputs[request.key] for token_id in output.token_ids]
        assert token_ids == generate_alone(request, 32)[0]


@pytest.mark.parametrize(("policy", "expected"), [("priority", [1, 3, 0, 2]), ("fcfs", [0, 1, 2, 3])])
def test_priority_orders_the_waiting_only_under_its_policy(policy: str, expected: list[int]) -> None:
    engine, model = make_engine(max_num_seqs=1, scheduling_policy=policy)
    for key, priority in enumerate([5, -1, 5, 0]):
        engine.add_request(make_request(key, [3, 4, 5], priority=priority, max_tokens=2))
    run_to_end(engine)
    assert [request.message.key for request in model.started] == expected


def test_under_priority_the_least_important_is_preempted_though_it_came_first() -> None:
    engine, model = make_engine(num_blocks=8, max_model_len=32, scheduling_policy="priority")
    engine.add_request(make_request(0, [10] * 7, priority=1, max_tokens=20, ignore_eos=True))
    engine.step()
    engine.add_request(make_request(1, [11] * 7, priority=0, max_tokens=20, ignore_eos=True))
    run_to_end(engine)
    assert engine.stats().num_preemptions > 0
    longest_run = {key: max_run(model.steps, key) for key in (0, 1)}
    assert longest_run[1] == 20, "the important one ran through"
    assert longest_run[0] < 20


def max_run(steps: list[dict[int, int]], key: int) -> int:
    """Most steps in a row in which a request had a part."""
    longest = current = 0
    for step in steps:
        current = current + 1 if key in step else 0
        longest = max(longest, current)
    return longest


def test_aborting_thousands_of_waiting_requests_leaves_the_others_in_order() -> None:
    engine, model = make_engine(max_num_seqs=1)
    for key in range(3000):
        engine.add_request(make_request(key, [3, 4, 5], max_tokens=1))
    engine.abort(b"", [key for key in range(3000) if key % 1000 != 7])
    assert engine.stats().num_waiting == 3
    run_to_end(engine)
    assert [request.message.key for request in model.started] == [7, 1007, 2007]


def test_statistics_count_what_the_steps_did() -> None:
    engine, model = make_engine(max_num_seqs=2)
    for key in range(3):
        engine.add_request(make_request(key, [3 + key, 4, 5], max_tokens=2, ignore_eos=True))
    engine.step()
    stats = engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.num_steps, stats.num_step_tokens) == (2, 1, 1, 6)
    assert stats.kv_cache_usage == 2 / 64
    run_to_end(engine)
    stats = engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.num_steps) == (0, 0, len(model.steps))
    assert stats.num_step_tokens == sum(sum(step.values()) for step in model.steps)


def test_a_decoding_sequence_has_the_block_that_a_step_begun_ahead_needs() -> None:
    engine, model = make_engine(num_lookahead_tokens=1)
    for key in range(3):
        engine.add_request(make_request(key, [5, 6, 7 + key], max_tokens=20, ignore_eos=True))
    outputs = run_to_end(engine)
    num_decoded = sum(len(output.token_ids) for key in outputs for output in outputs[key])
    # The prompts' own step is not one of them, and neither are those that end a request.
    assert model.num_written_ahead >= num_decoded - 3 - 3


def test_no_sequence_is_preempted_for_a_block_that_is_needed_later() -> None:
    engine, _ = make_engine(num_blocks=8, max_model_len=16, num_lookahead_tokens=1)
    for key in range(2):
        engine.add_request(make_request(key, [5, 6, 7 + key], max_tokens=13, ignore_eos=True))
    run_to_end(engine)
    assert engine.stats().num_preemptions == 0

"""Users of one engine take turns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import EngineCore
from zqserve.engine_core.messages import EngineRequest
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.scheduling.fair_share import MAX_REMEMBERED, Turns

from .paged_model import PagedModel


def request(key: int, user: str) -> EngineRequest:
    params = SamplingParams(max_tokens=1, ignore_eos=True)
    return EngineRequest(key=key, prompt_token_ids=[7, 11, 13], params=params, user=user)


def order_of_answers(users: str) -> str:
    """Who is answered when one sequence runs at a time and all ask at once."""
    core = EngineCore(PagedModel(max_model_len=64, num_blocks=64), EngineConfig(model="", max_num_seqs=1))
    for key, user in enumerate(users):
        core.add_request(request(key, user))
    answered = ""
    while core.has_unfinished():
        for outputs in core.step().values():
            answered += "".join(users[output.key] for output in outputs)
    return answered


def test_a_user_with_many_requests_does_not_hold_up_another() -> None:
    assert order_of_answers("aaaaaabbc") == "abcabaaaa"


def test_one_user_is_served_in_the_order_of_arrival() -> None:
    turns = Turns()
    assert [turns.take(0, "a") for _ in range(4)] == [0, 1, 2, 3]


@given(st.text("abc", min_size=1, max_size=60))
def test_no_user_is_more_than_one_ahead_of_one_who_waits(users: str) -> None:
    answered = order_of_answers(users)
    assert sorted(answered) == sorted(users)
    for length in range(len(answered)):
        served = {user: answered[:length].count(user) for user in set(users)}
        waiting = [served[user] for user in served if served[user] < users.count(user)]
        assert served[answered[length]] == min(waiting)


def test_silence_gathers_no_claims() -> None:
    turns = Turns()
    for _ in range(50):
        turns.begin(0, turns.take(0, "busy"))
    assert turns.take(0, "new") == 49
    assert turns.take(0, "new") == 50


def test_priorities_have_turns_of_their_own() -> None:
    turns = Turns()
    for _ in range(5):
        turns.begin(1, turns.take(1, "a"))
    assert turns.take(0, "a") == 0


def test_priorities_that_clients_make_up_do_not_pile_up() -> None:
    turns = Turns()
    for priority in range(5 * MAX_REMEMBERED):
        for _ in range(2):
            turns.begin(priority, turns.take(priority, "a"))
    assert len(turns) <= 2 * MAX_REMEMBERED
    assert turns.take(5 * MAX_REMEMBERED - 1, "a") == 2, "who asked last is remembered"

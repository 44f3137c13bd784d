"""Logits on the device, step after step without the host, against the host's processors and masks: to the bit."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch

from tests.server import tiny_tokenizers
from zqserve.engine_core.constraints.guided_decoding import Guide, GuidedDecoding
from zqserve.engine_core.messages import EngineRequest, Grammar
from zqserve.engine_core.model import device_automata, logits_processors
from zqserve.engine_core.model.device_automata import MAX_STATES, DeviceAutomata
from zqserve.engine_core.model.device_rows import DeviceRows, Entering
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.scheduling.request import Request
from zqserve.guided.grammar import GrammarSpec, compile_grammar
from zqserve.kernels.sampling import SamplingRows
from zqserve.kernels.triton.request_state import RequestState, choose_launches

VOCAB_SIZE = 409
"""Some rows of the head have no token."""
EOS, EOS_WITH_TEXT, SILENT_STOP = 2, 70, 1
ENDINGS = [EOS, EOS_WITH_TEXT, SILENT_STOP]
NUM_STEPS = 6
CPU = torch.device("cpu")

NUM_REQUESTS = 50
SCHEMAS = [
    '{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "yy", 1.5, null]}},'
    ' "required": ["a"], "additionalProperties": false}',
    '{"type": "array", "items": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}}',
    '{"type": "string", "maxLength": 3}',
    '{"type": ["number", "string"]}',
]
ATOMS = ["a", "b", ".", "[ab]", "[^a]", r"\d", r"\w", r"\s", "é", "日", "the", "[a-c1]", " "]
QUANTIFIERS = ["", "", "", "*", "+", "?", "{2}", "{1,3}", "{2,}"]


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> GuidedDecoding:
    directory = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizers.byte_level(directory)
    found = GuidedDecoding(str(directory), VOCAB_SIZE, jump_ahead=False)
    found.wait_for_vocabulary()
    return found


@pytest.mark.parametrize("seed", range(NUM_REQUESTS))
def test_the_device_does_what_the_host_does(guided: GuidedDecoding, seed: int) -> None:
    generator, choice = torch.Generator().manual_seed(seed), random.Random(seed)
    request = _request(choice)
    guide = request.guide = guided.guide(request.message)
    state = RequestState.empty(3, VOCAB_SIZE, MAX_STATES, CPU)
    rows = DeviceRows(state, DeviceAutomata(state))
    processors = logits_processors.make_state(request, CPU)

    def draw_on_host(logits: torch.Tensor) -> bool:
        """Whether a token may be drawn from what becomes of the logits."""
        if processors is not None:
            logits_processors.apply(logits, request, processors)
        mask = np.zeros(-(-VOCAB_SIZE // 32), np.uint32)
        if guide is not None:
            if not guide.before_sampling(request, mask, 60.0).is_ready:
                return False
            logits[np.unpackbits(mask.view(np.uint8), bitorder="little")[:VOCAB_SIZE] == 0] = -torch.inf
        return bool(torch.isfinite(logits.max()))

    logits = torch.randn(VOCAB_SIZE, generator=generator)
    if not draw_on_host(logits):
        return
    logits[ENDINGS] = -torch.inf
    token_id = int(logits.argmax())
    if guide is not None:
        _make_table(rows.automata, guide)
    assert rows.can_enter(request, [token_id])
    rows.bring([Entering(1, request, [token_id])], _parameters(1))
    row_of = torch.tensor([state.nobody, 1], dtype=torch.int32)
    drawn = torch.empty(2, dtype=torch.int64)
    for number in range(1, NUM_STEPS):
        request.token_ids.append(token_id)
        if guide is not None:
            guide.after_sampling(token_id, 60.0)
        expected = torch.randn(VOCAB_SIZE, generator=generator)
        logits = expected.repeat(2, 1)
        assert int(state.sampling.position[1]) == number
        for launch in choose_launches(drawn, logits, row_of, state):
            launch.run()
        state.sampling.position[1] += 1  # as `advance_launch` does
        assert torch.equal(logits[0], expected)
        if not draw_on_host(expected):
            return
        assert torch.equal(logits[1], expected)
        token_id = int(drawn[1])
        assert token_id == int(expected.argmax())
        if token_id in ENDINGS:
            return


def test_automata_make_room_for_each_other(guided: GuidedDecoding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_automata, "MAX_STATES", 64)
    monkeypatch.setattr(device_automata, "TURNS_WITHOUT_ROOM", 2)
    state = RequestState.empty(3, VOCAB_SIZE, 64, CPU)
    automata = DeviceAutomata(state)
    requests = [Request.from_message(_message(GrammarSpec("regex", text))) for text in ("[ab]{40}", "c{40}", "d{9}")]
    guides = [_begun(guided, request) for request in requests]

    def turn(*used: int) -> list[bool]:
        """Which of the automata are there, once `used` were to be used and the others were made if there is room."""
        automata.begin_turn()
        for number in used:
            automata.has(guides[number])
        for guide in guides:
            automata.work(guide)
        return [entry is not None and entry.table is not None for entry in map(automata._entry, guides)]

    assert turn() == [True, False, True]
    assert turn(0) == [True, False, True]
    assert automata.state_of(requests[0], guides[0], [_token_of(guides[0], b"a")]) == 1
    assert turn(0, 2) == [True, False, True]
    assert turn(2) == [True, False, True]
    assert turn(2) == [False, True, True]  # the first was not used in the last turn
    first = automata.state_of(requests[1], guides[1], [])
    assert first is not None
    assert int(state.automata.cells[first, ord("c")]) == first + 1
    assert int(state.automata.cells[first, ord("a")]) == -1


def _request(choice: random.Random) -> Request:
    """With a grammar or without."""
    ids = range(3, VOCAB_SIZE)
    bias = {token_id: choice.uniform(-9, 9) for token_id in choice.sample(ids, 5)}
    params = SamplingParams(
        temperature=0.0,
        repetition_penalty=choice.choice([1.0, 1.3, 0.7]),
        frequency_penalty=choice.choice([0.0, 0.7]),
        presence_penalty=choice.choice([0.0, -1.1]),
        logit_bias=choice.choice([None, bias]),
        min_tokens=choice.choice([0, 2, 4]),
        ignore_eos=choice.random() < 0.3,
        stop_token_ids=choice.choice([None, [SILENT_STOP], [99]]),
        max_tokens=50,
    )
    message = EngineRequest(
        key=0,
        prompt_token_ids=choice.choices(range(VOCAB_SIZE), k=30),
        params=params,
        eos_token_ids=[EOS, EOS_WITH_TEXT],
    )
    if choice.random() < 0.6:
        spec = GrammarSpec("json", choice.choice(SCHEMAS))
        if choice.random() < 0.6:
            spec = GrammarSpec("regex", _regex(choice, 2))
        message.grammar = Grammar(spec.text.encode(), pickle.dumps(compile_grammar(spec)))
    else:
        params.allowed_token_ids = choice.choice([None, [*choice.sample(ids, 200), EOS, SILENT_STOP]])
        message.bad_words_token_ids = [[token_id] for token_id in (*choice.sample(ids, 3), EOS_WITH_TEXT)]
    return Request.from_message(message)


def _regex(choice: random.Random, depth: int) -> str:
    if depth == 0:
        return choice.choice(ATOMS) + choice.choice(QUANTIFIERS)
    parts = [_regex(choice, depth - 1) for _ in range(choice.randint(1, 3))]
    return f"(?:{choice.choice(['', '|']).join(parts)}){choice.choice(QUANTIFIERS)}"


def _message(spec: GrammarSpec) -> EngineRequest:
    grammar = Grammar(spec.text.encode(), pickle.dumps(compile_grammar(spec)))
    return EngineRequest(key=0, prompt_token_ids=[5], params=SamplingParams(), grammar=grammar)


def _begun(guided: GuidedDecoding, request: Request) -> Guide:
    """A guide that was asked for its first mask."""
    guide = guided.guide(request.message)
    assert guide is not None
    guide.before_sampling(request, np.zeros(-(-VOCAB_SIZE // 32), np.uint32), 60.0)
    return guide


def _token_of(guide: Guide, text: bytes) -> int:
    """The token of a text."""
    assert guide.tokens is not None
    return guide.tokens.index(text)


def _make_table(automata: DeviceAutomata, guide: Guide) -> None:
    automata.begin_turn()
    while automata.work(guide):
        pass


def _parameters(position: int) -> SamplingRows:
    """Of one greedy row."""
    floats, longs = [np.zeros(1, np.float32) for _ in range(3)], [np.zeros(1, np.int64) for _ in range(4)]
    rows = SamplingRows(floats[0], longs[0], floats[1], floats[2], *longs[1:])
    rows.position[:] = position
    return rows

"""Guided requests in the engine: what they bring matches, whatever runs beside them and however it was scheduled."""

from __future__ import annotations

import itertools
import os
import pickle
import re
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.server import tiny_tokenizers
from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.constraints import grammar_reader, guided_decoding, guided_step
from zqserve.engine_core.constraints.guided_decoding import load_vocabulary
from zqserve.engine_core.engine import EngineCore, build_engine_core
from zqserve.engine_core.messages import EngineOutput, EngineRequest, Grammar, TokenLogprobs
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.tokenizer import Tokenizer
from zqserve.guided import budget
from zqserve.guided.automata.configuration import Mask
from zqserve.guided.grammar import CompiledGrammar
from zqserve.guided.matcher import GrammarMatcher
from zqserve.server.constraints.constraint import Constraint, ConstraintKind
from zqserve.server.constraints.grammar_worker import compile_constraint

EOS = 2
SENTENCE = "The capital of France is Paris. The quick brown fox jumps over the lazy dog."
LIST = r"\[\d{1,3}(, \d{1,3}){8}\]"


@dataclass
class Answer:
    """What came of one request."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    num_outputs: int = 0
    finish_reason: str | None = None
    stop_reason: int | None = None
    is_complete: bool = False
    error: str | None = None

    def add(self, output: EngineOutput) -> None:
        self.token_ids += output.token_ids
        self.logprobs += output.logprobs or []
        self.num_outputs += 1
        self.finish_reason, self.stop_reason = output.finish_reason, output.stop_reason
        self.is_complete, self.error = output.is_complete, output.error


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    tokenizer = tiny_tokenizers.byte_level(directory)
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size + 9,  # some rows of the head that no token has
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.15,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return tiny_tokenizers.load_tokenizer(folder)


@pytest.fixture(scope="module")
def make_core(folder: Path) -> Callable[..., EngineCore]:
    def make(**changes: Any) -> EngineCore:
        return build_engine_core(EngineConfig(**{"model": str(folder), "num_blocks": 400, "num_threads": 2, **changes}))

    return make


@pytest.fixture(scope="module")
def core(make_core: Callable[..., EngineCore]) -> EngineCore:
    return make_core()


def grammar(text: str, kind: ConstraintKind = "regex") -> Grammar:
    constraint = Constraint(param="guided", kind=kind, text=text)
    return Grammar(constraint.content_key(), compile_constraint(constraint))


def request(key: int, given: Grammar | None, *, length: int = 20, **fields: Any) -> EngineRequest:
    """A seeded request; names that are not those of `EngineRequest` go to its `SamplingParams`."""
    own = {name: fields.pop(name) for name in ("output_token_ids", "eos_token_ids", "sample_index") if name in fields}
    prompt = torch.randint(3, 390, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    params = SamplingParams(**{"temperature": 1.0, "max_tokens": 200, "seed": 3, **fields})
    return EngineRequest(
        **{"key": key, "prompt_token_ids": prompt, "params": params, "eos_token_ids": [EOS], "grammar": given, **own}
    )


def answers(core: EngineCore, *messages: EngineRequest) -> dict[int, Answer]:
    found = {message.key: Answer() for message in messages}
    for message in messages:
        core.add_request(message)
    while core.has_unfinished():
        for output in core.step().get(b"", []):
            found[output.key].add(output)
    return found


def answer(core: EngineCore, given: Grammar | None, **fields: Any) -> Answer:
    return answers(core, request(0, given, **fields))[0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_output_matches_and_ends_at_once_without_eos(
    core: EngineCore, tokenizer: Tokenizer, temperature: float
) -> None:
    for seed in range(8):
        found = answer(core, grammar(LIST), seed=seed, temperature=temperature)
        assert re.fullmatch(LIST, tokenizer.decode(found.token_ids))
        assert (found.finish_reason, found.stop_reason, found.is_complete) == ("stop", None, True)


def test_eos_comes_only_where_the_grammar_is_complete(core: EngineCore, tokenizer: Tokenizer) -> None:
    ended_by_eos = 0
    for seed in range(30):
        found = answer(core, grammar(r"(ab)+c?"), seed=seed, max_tokens=300, logit_bias={EOS: 5.0})
        if found.finish_reason == "stop":
            assert re.fullmatch(r"(ab)+c?", tokenizer.decode(found.token_ids))
            ended_by_eos += found.token_ids[-1] == EOS
            assert found.is_complete == (found.token_ids[-1] != EOS)
    assert ended_by_eos


def test_a_stop_token_without_text_may_end_a_complete_output(core: EngineCore) -> None:
    found = answer(core, grammar("(ab)+"), stop_token_ids=[1], logit_bias={1: 100.0}, eos_token_ids=[])
    assert (found.token_ids[-1], found.finish_reason, found.stop_reason) == (1, "stop", 1)


def test_an_end_that_is_text_is_never_taken_for_text(core: EngineCore, tokenizer: Tokenizer) -> None:
    letter = tokenizer.encode("b")[0]
    found = answer(core, grammar("(a|b)+"), eos_token_ids=[letter], logit_bias={letter: 100.0})
    assert tokenizer.decode(found.token_ids[:-1]).strip("a") == ""
    assert len(found.token_ids) == 2  # one letter, and the end as soon as it may come
    assert (found.finish_reason, found.stop_reason, found.is_complete) == ("stop", None, False)


def test_forced_text_is_appended_as_the_tokenizer_cuts_it(
    make_core: Callable[..., EngineCore], tokenizer: Tokenizer
) -> None:
    core = make_core()
    found = answer(core, grammar(f'["{SENTENCE}"]', "choice"))
    assert found.token_ids == tokenizer.encode(SENTENCE)
    assert found.num_outputs == 1
    assert core.stats().num_forced_tokens == len(found.token_ids)
    assert (found.finish_reason, found.is_complete) == ("stop", True)


def test_without_jump_ahead_the_text_is_the_same(make_core: Callable[..., EngineCore], tokenizer: Tokenizer) -> None:
    core = make_core(jump_ahead=False)
    found = answer(core, grammar(f'["{SENTENCE}"]', "choice"))
    assert tokenizer.decode(found.token_ids) == SENTENCE
    assert found.num_outputs == len(found.token_ids)
    assert core.stats().num_forced_tokens == 0


def test_a_step_brings_the_choice_and_what_follows_from_it(core: EngineCore, tokenizer: Tokenizer) -> None:
    given = grammar(f"(1|2): {re.escape(SENTENCE)}( (3|4))?")
    found = answer(core, given)
    text = tokenizer.decode([token_id for token_id in found.token_ids if token_id != EOS])
    assert re.fullmatch(rf"[12]: {re.escape(SENTENCE)}( [34])?", text)
    assert found.num_outputs <= 6 < len(found.token_ids)


@pytest.mark.parametrize("max_tokens", [1, 5, 9])
def test_forced_text_keeps_to_max_tokens(core: EngineCore, tokenizer: Tokenizer, max_tokens: int) -> None:
    found = answer(core, grammar(f'["{SENTENCE}"]', "choice"), max_tokens=max_tokens)
    assert found.token_ids == tokenizer.encode(SENTENCE)[:max_tokens]
    assert (found.finish_reason, found.is_complete) == ("length", False)


def test_forced_text_ends_at_a_stop_token(core: EngineCore, tokenizer: Tokenizer) -> None:
    token_ids = tokenizer.encode(SENTENCE)
    found = answer(core, grammar(f'["{SENTENCE}"]', "choice"), stop_token_ids=[token_ids[4]])
    assert found.token_ids == token_ids[: token_ids.index(token_ids[4]) + 1]
    assert (found.finish_reason, found.stop_reason, found.is_complete) == ("stop", token_ids[4], False)


def test_logprobs_are_the_models_own_an_entry_a_token(core: EngineCore) -> None:
    free = answer(core, None, logprobs=5, max_tokens=1)
    guided = answer(core, grammar(f'["{SENTENCE}"]', "choice"), logprobs=5)
    assert len(guided.logprobs) == len(guided.token_ids)
    assert guided.logprobs[0].token_ids[1:] == free.logprobs[0].token_ids[1:]
    assert guided.logprobs[0].logprobs[1:] == free.logprobs[0].logprobs[1:]


def test_min_tokens_holds_eos_back_but_not_the_end_of_the_grammar(core: EngineCore) -> None:
    eager = {"logit_bias": {EOS: 100.0}}
    assert len(answer(core, grammar("a*"), **eager).token_ids) == 1
    held = answer(core, grammar("(a|b)*"), min_tokens=7, **eager)
    assert (len(held.token_ids), held.token_ids[-1], held.finish_reason) == (8, EOS, "stop")
    ended = answer(core, grammar("[xyz]{3}"), min_tokens=50)
    assert (ended.finish_reason, ended.is_complete) == ("stop", True)


def test_an_ignored_eos_never_comes_but_the_grammar_may_end(core: EngineCore) -> None:
    found = answer(core, grammar("(a|b)*"), ignore_eos=True, max_tokens=30, logit_bias={EOS: 100.0})
    assert (EOS in found.token_ids, len(found.token_ids), found.finish_reason) == (False, 30, "length")
    ended = answer(core, grammar("[xyz]{3}"), ignore_eos=True)
    assert (ended.finish_reason, ended.is_complete) == ("stop", True)


def test_the_fields_that_forbid_tokens_hold_beside_the_grammar(core: EngineCore, tokenizer: Tokenizer) -> None:
    a, b = tokenizer.encode("a")[0], tokenizer.encode("b")[0]
    found = answer(core, grammar("[ab]{9}"), allowed_token_ids=[a])
    assert found.token_ids == [a] * 9
    biased = answer(core, grammar("[ab]{9}"), logit_bias={b: 100.0}, bad_words=None)
    assert biased.token_ids == [b] * 9


def test_a_request_that_forbids_what_its_grammar_needs_fails_alone(core: EngineCore, tokenizer: Tokenizer) -> None:
    b = tokenizer.encode("b")[0]
    found = answers(core, request(0, grammar("a+"), allowed_token_ids=[b]), request(1, grammar("a{5}b")))
    assert found[0].finish_reason == "error"
    assert "No token is left" in (found[0].error or "")
    assert found[1].finish_reason == "stop"


def test_an_output_that_may_end_does_when_all_else_is_forbidden(core: EngineCore, tokenizer: Tokenizer) -> None:
    a = tokenizer.encode("a")[0]
    found = answer(core, grammar("a{3}b*"), allowed_token_ids=[a])
    assert (found.token_ids, found.finish_reason, found.is_complete) == ([a] * 3, "stop", True)


GUIDED = 0


def mixed(core: EngineCore, *more: EngineRequest, **fields: Any) -> Answer:
    """The answer to the request under watch among others, guided and free."""
    others = [
        request(key, [None, grammar(r"\d{5,40}"), grammar("(ab|cd)*", "regex")][key % 3], length=5 + 2 * key, seed=key)
        for key in range(1, 16)
    ]
    return answers(core, *others[:7], request(GUIDED, grammar(LIST), length=40, **fields), *others[7:], *more)[GUIDED]


@pytest.fixture(scope="module")
def alone(core: EngineCore) -> Answer:
    return answer(core, grammar(LIST), length=40)


def test_the_same_tokens_among_others(make_core: Callable[..., EngineCore], alone: Answer) -> None:
    assert mixed(make_core()).token_ids == alone.token_ids


def test_the_same_tokens_after_preemptions(make_core: Callable[..., EngineCore], alone: Answer) -> None:
    core = make_core(num_blocks=32, max_num_batched_tokens=40, enable_prefix_caching=False)
    assert mixed(core).token_ids == alone.token_ids
    assert core.stats().num_preemptions > 0


def test_the_same_tokens_with_the_prefix_in_the_cache(core: EngineCore, alone: Answer) -> None:
    before = core.stats().prefix_cache_hits
    assert answer(core, grammar(LIST), length=40).token_ids == alone.token_ids
    assert core.stats().prefix_cache_hits > before


@pytest.mark.parametrize("num_known", [1, 4, 9])
def test_a_resumed_output_goes_on_in_its_grammar(core: EngineCore, alone: Answer, num_known: int) -> None:
    known = alone.token_ids[:num_known]
    found = answer(core, grammar(LIST), length=40, output_token_ids=known)
    assert known + found.token_ids == alone.token_ids


def test_a_resumed_output_that_was_complete_ends(core: EngineCore, alone: Answer) -> None:
    found = answer(core, grammar(LIST), length=40, output_token_ids=alone.token_ids)
    assert (found.token_ids, found.finish_reason) == ([], "stop")


def test_a_resumed_output_of_another_grammar_is_an_error(core: EngineCore, alone: Answer) -> None:
    found = answer(core, grammar("nothing like it"), length=40, output_token_ids=alone.token_ids[:3])
    assert found.finish_reason == "error"
    assert "does not match" in (found.error or "")


def test_samples_of_one_request_differ_and_each_matches(core: EngineCore, tokenizer: Tokenizer) -> None:
    found = answers(core, *[request(key, grammar(LIST), sample_index=key) for key in range(6)])
    texts = [tokenizer.decode(each.token_ids) for each in found.values()]
    assert len(set(texts)) > 1
    assert all(re.fullmatch(LIST, text) for text in texts)


@pytest.fixture(autouse=True)
def _time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, no mask is late: the number of steps is known."""
    for name in ("STEP_SECONDS", "PATIENT_SECONDS"):
        monkeypatch.setattr(guided_step, name, 1000.0)
    monkeypatch.setattr(guided_decoding, "END_SECONDS", 1000.0)


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Masks get no time in a step: every look at the clock, and there are many, finds that it is over."""
    monkeypatch.setattr(guided_step, "STEP_SECONDS", 0.0)
    monkeypatch.setattr(budget, "UNITS_PER_LOOK", 50)
    return


@pytest.mark.usefixtures("no_time")
def test_a_mask_that_is_late_changes_no_token_and_holds_up_nobody(
    make_core: Callable[..., EngineCore], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = grammar(r"[a-z]*(a|b)[a-z]{12}[0-9](0|1|2){9}")
    core = make_core()
    late = answers(core, request(0, given), request(1, None, max_tokens=60, ignore_eos=True))
    num_late = core.stats().num_late_masks
    monkeypatch.setattr(guided_step, "STEP_SECONDS", 1000.0)
    in_time = answers(make_core(), request(0, given))
    assert num_late > 3
    assert late[0].token_ids == in_time[0].token_ids
    assert late[1].num_outputs == len(late[1].token_ids) == 60


def test_a_grammar_that_is_no_grammar_is_an_error(core: EngineCore) -> None:
    for data in (
        b"",
        b"no pickle",
        pickle.dumps([1, 2]),
        pickle.dumps(os.system),
        pickle.dumps(EngineConfig(model="")),
    ):
        found = answer(core, Grammar(b"broken" + data[:10], data))
        assert found.finish_reason == "error"
        assert "grammar" in (found.error or "")


@pytest.mark.parametrize("fields", [{}, {"min_tokens": 12}, {"ignore_eos": True}, {"stop_token_ids": [80]}])
def test_an_answer_is_the_same_whether_its_steps_are_known_or_not(
    make_core: Callable[..., EngineCore], fields: dict[str, Any]
) -> None:
    given = grammar(r"(the|quick|brown|fox| |\d){3,40}")
    core = make_core()
    first, again = answer(core, given, **fields), answer(core, given, **fields)
    assert first.finish_reason in ("stop", "length")
    assert again == first


def test_a_grammar_that_breaks_fails_its_request_and_no_other(
    core: EngineCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_mask, calls = GrammarMatcher.mask, itertools.count()

    def break_once(matcher: GrammarMatcher) -> Mask:
        if next(calls) == 5:
            raise IndexError("something unforeseen")
        return make_mask(matcher)

    monkeypatch.setattr(GrammarMatcher, "mask", break_once)
    found = answers(core, *[request(key, grammar("[ab]{40}"), seed=key) for key in range(3)])
    assert sorted(each.finish_reason or "" for each in found.values()) == ["error", "stop", "stop"]


def test_work_that_cannot_be_cut_into_pieces_is_done_at_last(
    core: EngineCore, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guided_step, "STEP_SECONDS", 0.0)
    monkeypatch.setattr(guided_step, "PATIENT_SECONDS", 60.0)
    make = GrammarMatcher.mask

    def in_one_piece(matcher: GrammarMatcher) -> Any:
        for _ in range(2 * budget.UNITS_PER_LOOK):
            matcher.pushdown.budget.spend()
        return make(matcher)

    monkeypatch.setattr(GrammarMatcher, "mask", in_one_piece)
    monkeypatch.setattr(GrammarMatcher, "pushdown", property(lambda self: self._cache.pushdown), raising=False)
    found = answer(core, grammar("[b-y]{3}[0-9]{2}"), max_tokens=20)
    assert re.fullmatch("[b-y]{3}[0-9]{2}", tokenizer.decode(found.token_ids))


def test_many_new_grammars_take_turns_where_a_step_has_time_for_one(
    core: EngineCore, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guided_step, "STEP_SECONDS", 0.0)
    made_in_step: list[int] = []
    make = GrammarMatcher.mask

    def counted(matcher: GrammarMatcher) -> Any:
        made_in_step[-1] += 1
        return make(matcher)

    monkeypatch.setattr(GrammarMatcher, "mask", counted)
    patterns = [f"[{letter}-z]{{2,4}}{number}" for number, letter in enumerate("abcdef")]
    found = {key: Answer() for key in range(len(patterns))}
    for key, pattern in enumerate(patterns):
        core.add_request(request(key, grammar(pattern), seed=key))
    while core.has_unfinished():
        made_in_step.append(0)
        for output in core.step().get(b"", []):
            found[output.key].add(output)
    assert max(made_in_step) == 1
    for key, pattern in enumerate(patterns):
        assert re.fullmatch(pattern, tokenizer.decode(found[key].token_ids))


def test_grammars_that_nobody_uses_make_room_for_those_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = grammar_reader.GrammarReader()
    given = [grammar(f"[a-z]{{3}}{number}") for number in range(6)]
    used = reader.read(given[0])
    monkeypatch.setattr(grammar_reader, "MAX_TOTAL_BYTES", 3 * used.num_bytes() + 1000)
    last = [weakref.ref(reader.read(each)) for each in given[1:]]
    assert [ref() is not None for ref in last] == [False, False, False, True, True]
    assert reader.num_bytes() <= grammar_reader.MAX_TOTAL_BYTES
    assert reader.read(given[0]) is used


def test_what_is_dropped_for_room_is_found_again(core: EngineCore, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = answer(core, grammar(LIST)).token_ids
    forgotten: list[CompiledGrammar] = []
    monkeypatch.setattr(guided_decoding, "MASKS_PER_TRIM", 1)
    monkeypatch.setattr(grammar_reader, "MAX_TOTAL_BYTES", 0)
    monkeypatch.setattr(CompiledGrammar, "stop_growing", lambda self: forgotten.append(self))
    assert answer(core, grammar(LIST)).token_ids == expected
    assert forgotten


def test_a_grammar_that_takes_all_memory_fails_its_request_and_no_other(
    core: EngineCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guided_decoding, "MASKS_PER_TRIM", 1)
    monkeypatch.setattr(grammar_reader, "MAX_TOTAL_BYTES", 0)
    found = answers(core, request(0, grammar(r"[a-z]{2}[0-9][f-z]?([0-8]x)+")), request(1, None))
    assert found[0].error
    assert "too complex" in found[0].error or "states" in found[0].error
    assert found[1].error is None


def test_words_of_a_tokenizer_that_has_no_bytes_are_refused(tmp_path: Path) -> None:
    tiny_tokenizers.word_pieces(tmp_path)
    with pytest.raises(ValueError, match="depends on"):
        load_vocabulary(str(tmp_path), 300)

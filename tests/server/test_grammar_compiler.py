"""The compiler of constraints: within its limits, once for each content, and not for those who left."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import psutil
import pytest

from zqserve.engine_core.constraints.grammar_reader import GrammarReader
from zqserve.engine_core.errors import InvalidRequestError, RequestFailedError
from zqserve.engine_core.messages import Grammar
from zqserve.guided.errors import GrammarError
from zqserve.server.constraints.constraint import Constraint, ConstraintKind
from zqserve.server.constraints.grammar_compiler import MAX_SLOW, SLOW_NICENESS, GrammarCompiler
from zqserve.server.constraints.grammar_worker import compile_constraint


def regex(pattern: str) -> Constraint:
    return Constraint(param="guided_regex", kind="regex", text=pattern)


def large_choice() -> Constraint:
    """Takes tens of megabytes, and is right."""
    texts = [f"{number * 7919 % 1_000_003:x}" for number in range(80_000)]
    return Constraint(param="guided_choice", kind="choice", text=json.dumps(texts))


def long_schema() -> Constraint:
    """Takes long only because there is so much to read."""
    properties = {f"p{number}": {"type": "string", "maxLength": number} for number in range(15_000)}
    return Constraint(param="guided_json", kind="json", text=json.dumps({"type": "object", "properties": properties}))


class Compiler:
    """A compiler, and what it compiled."""

    def __init__(self, *, timeout: float = 60.0, memory: int = 1 << 30) -> None:
        self.seconds: list[float] = []
        self.compiler = GrammarCompiler(timeout=timeout, memory=memory, observe_seconds=self.seconds.append)

    async def compile(self, constraint: Constraint) -> Grammar:
        return await self.compiler.compile(constraint)


@contextlib.asynccontextmanager
async def compiler(**limits: Any) -> AsyncIterator[Compiler]:
    running = Compiler(**limits)
    try:
        yield running
    finally:
        await running.compiler.close()
        await until(lambda: not workers())


def workers() -> list[psutil.Process]:
    """The processes that compile for this one."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if (
                "zqserve.server.constraints.grammar_worker" in child.cmdline()
                and child.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(child)
    return found


async def stop_worker(running: Compiler) -> psutil.Process:
    """Have the process that will compile next stand still, as one that has far too much to do."""
    await running.compile(regex(f"warm {len(running.seconds)}"))
    await until(lambda: [worker for worker in workers() if worker.nice() == psutil.Process().nice()])
    (worker,) = [worker for worker in workers() if worker.nice() == psutil.Process().nice()]
    worker.suspend()
    return worker


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(240):
        while not condition():
            await asyncio.sleep(0.01)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 480))


def test_a_grammar_is_compiled_once_and_the_engine_can_read_it() -> None:
    async def test() -> None:
        async with compiler() as running:
            first = await running.compile(regex("a+"))
            again = await running.compile(Constraint(param="structured_outputs.regex", kind="regex", text="a+"))
            assert first == again
            assert len(running.seconds) == 1
            assert GrammarReader().read(first) is not None

    run(test())


def test_a_refusal_names_the_field_that_asked() -> None:
    async def test() -> None:
        async with compiler() as running:
            for param in ("guided_regex", "structured_outputs.regex"):
                with pytest.raises(InvalidRequestError, match=f"^{param}: .*position") as caught:
                    await running.compile(Constraint(param=param, kind="regex", text="a(b"))
                assert caught.value.param == param
            assert len(running.seconds) == 1

    run(test())


def test_requests_for_the_same_grammar_share_one_compilation() -> None:
    async def test() -> None:
        async with compiler() as running:
            grammars = await asyncio.gather(*[running.compile(regex("(ab){3,9}")) for _ in range(20)])
            assert len({grammar.key for grammar in grammars}) == 1
            assert len(running.seconds) == 1

    run(test())


def test_what_takes_too_long_is_refused_and_its_process_ended() -> None:
    async def test() -> None:
        async with compiler(timeout=0.3) as running:
            stuck = await stop_worker(running)
            with pytest.raises(InvalidRequestError, match=r"takes longer than 0\.3 s"):
                await running.compile(regex("never done"))
            await until(lambda: stuck not in workers())
            await running.compile(regex("still there"))

    run(test())


def test_what_takes_too_much_memory_is_refused() -> None:
    async def test() -> None:
        async with compiler(memory=8 << 20) as running:
            with pytest.raises(InvalidRequestError, match="more than 8 MiB"):
                await running.compile(large_choice())
            await running.compile(regex("still there"))

    run(test())


def test_a_grammar_whose_process_dies_is_tried_once_more_and_then_given_up() -> None:
    async def test() -> None:
        async with compiler() as running:
            worker = await stop_worker(running)
            victim = asyncio.ensure_future(running.compile(long_schema()))
            await until(lambda: worker.nice() == SLOW_NICENESS)  # it has the schema, and moved aside
            worker.kill()
            await until(lambda: worker not in workers())
            await until(lambda: [other for other in workers() if other.nice() == SLOW_NICENESS])
            (second,) = [other for other in workers() if other.nice() == SLOW_NICENESS]
            second.kill()
            with pytest.raises(RequestFailedError, match="guided_json: the processes that compile it end"):
                await victim
            await running.compile(regex("still there"))

    run(test())


def test_a_process_that_dies_while_idle_costs_nothing() -> None:
    async def test() -> None:
        async with compiler() as running:
            await running.compile(regex("warm"))
            for worker in workers():
                worker.kill()
            await until(lambda: not workers())
            await running.compile(regex("still there"))

    run(test())


def test_the_last_one_that_leaves_ends_the_compilation() -> None:
    async def test() -> None:
        async with compiler() as running:
            stuck = await stop_worker(running)
            waiting = [asyncio.ensure_future(running.compile(regex("never done"))) for _ in range(2)]
            await until(lambda: len(workers()) == 2)  # it moved aside
            waiting[0].cancel()
            await asyncio.sleep(0.05)
            assert stuck in workers()
            waiting[1].cancel()
            await until(lambda: stuck not in workers())
            assert len(running.seconds) == 1

    run(test())


def test_quick_grammars_do_not_wait_for_slow_ones() -> None:
    async def test() -> None:
        async with compiler() as running:
            slow: list[asyncio.Future[Grammar]] = []
            for number in range(MAX_SLOW + 2):
                stuck = await stop_worker(running)
                slow.append(asyncio.ensure_future(running.compile(regex(f"never done {number}"))))
                await asyncio.sleep(0)
                await running.compile(regex(f"quick {number}"))
                if number < MAX_SLOW:
                    assert stuck.nice() == SLOW_NICENESS
                else:
                    await until(lambda stuck=stuck: stuck not in workers())  # it begins anew when there is room
            assert not any(task.done() for task in slow[:MAX_SLOW])
            for task in slow[:MAX_SLOW]:
                task.cancel()
            for task in slow[MAX_SLOW:]:
                await task

    run(test())


def test_a_worker_ends_with_its_input() -> None:
    async def test() -> None:
        async with compiler() as running:
            await running.compile(regex("a"))
            (worker,) = workers()
            assert worker.is_running()
        assert not workers()

    run(test())


@pytest.mark.parametrize("kind", ["regex", "grammar", "json", "choice", "structural_tag"])
def test_half_a_surrogate_pair_is_refused_in_words(kind: ConstraintKind) -> None:
    # JSON over HTTP cannot bring one here, Python can.
    with pytest.raises(GrammarError, match="half a surrogate pair"):
        compile_constraint(Constraint(param="x", kind=kind, text='root ::= "\ud800"'))

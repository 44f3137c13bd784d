"""Prometheus metrics under the names that vLLM's dashboards read.

One `Metrics` an application, with a registry of its own. What the engine counts is read from its last
`EngineStats` at each scrape; what requests take is observed by `request_timing.py`. With several workers each
scrape answers for all of them: prometheus_client then keeps the values in files that the workers share (its
multiprocess mode, which `asgi_server.py` turns on), and the engine's own figures are the same in every
worker. What the answering worker holds at the moment bears its process id.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...engine_core.messages import EngineStats
from ..server_status import ServerStatus
from .token_times import TokenTimes

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"

_PREFIX = "vllm:"
_ALIASES = {
    "kv_cache_usage_perc": "gpu_cache_usage_perc",
    "inter_token_latency_seconds": "time_per_output_token_seconds",
}
_FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5),
    *(0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0),
)
_TOKEN_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2),
    *(0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0),
)
_REQUEST_BUCKETS = (
    0.1,
    0.3,
    0.5,
    0.8,
    1.0,
    1.5,
    2.0,
    2.5,
    5.0,
    10.0,
    15.0,
    20.0,
    30.0,
    40.0,
    60.0,
    120.0,
    480.0,
    1920.0,
)
_COUNT_BUCKETS = tuple(digit * 10**power for power in range(7) for digit in (1, 2, 5))
_SAMPLES_BUCKETS = (1, 2, 5, 10, 20)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))
LEFT_UNANSWERED = 499
"""Stands for the status of a request whose client left before an answer began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFigures:
    """What a front-end worker holds at one moment. All but the tasks are 0 when nobody asks for anything."""

    tasks: int
    """Of its event loop; the scrape is one of them."""
    open_requests: int
    """HTTP requests that are being answered, but for probes."""
    queued_requests: int
    """Of these, what the engine has given nothing yet."""
    live_requests: int
    """What was sent to the engine and has not ended."""
    compilations: int
    """Grammars that are being compiled, or wait for that."""


class Metrics:
    """The metrics of one application; every value carries the label `model_name`.

    The attributes are the children for that label: `observe` and `inc` go straight to the value.
    """

    def __init__(self, model_name: str, engine_stats: Callable[[], EngineStats], status: ServerStatus) -> None:
        self._registry = CollectorRegistry()
        self._model_name = model_name
        self._live: list[Collector] = [_EngineCollector(model_name, engine_stats, status)]
        """What is asked for at each scrape, and kept nowhere."""
        self._registry.register(self._live[0])
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of finished requests.")
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds", "From arrival to the first token.", _FIRST_TOKEN_BUCKETS
        )
        self.token_times = TokenTimes(
            self._counter("generation_tokens", "Tokens generated."),
            self._histogram("inter_token_latency_seconds", "Between tokens of an answer.", _TOKEN_BUCKETS),
            _TOKEN_BUCKETS,
        )
        self.time_per_output_token = self._histogram(
            "request_time_per_output_token_seconds", "Mean time between tokens of a request.", _TOKEN_BUCKETS
        )
        self.e2e_latency = self._histogram(
            "e2e_request_latency_seconds", "From arrival to the last token.", _REQUEST_BUCKETS
        )
        self.queue_time = self._histogram(
            "request_queue_time_seconds", "From arrival to the first step.", _REQUEST_BUCKETS
        )
        self.inference_time = self._histogram(
            "request_inference_time_seconds", "From the first step to the last token.", _REQUEST_BUCKETS
        )
        self.prefill_time = self._histogram(
            "request_prefill_time_seconds", "From the first step to the first token.", _REQUEST_BUCKETS
        )
        self.decode_time = self._histogram(
            "request_decode_time_seconds", "From the first token to the last.", _REQUEST_BUCKETS
        )
        self.request_prompt_tokens = self._histogram(
            "request_prompt_tokens", "Prompt tokens of a request.", _COUNT_BUCKETS
        )
        self.request_generation_tokens = self._histogram(
            "request_generation_tokens", "Tokens of an answer.", _COUNT_BUCKETS
        )
        self.request_n = self._histogram("request_params_n", "The parameter n.", _SAMPLES_BUCKETS)
        self.request_max_tokens = self._histogram(
            "request_params_max_tokens", "The parameter max_tokens.", _COUNT_BUCKETS
        )
        self.grammar_compile_seconds = self._histogram(
            "grammar_compile_seconds",
            "From a constraint to its grammar, for those that were not known.",
            _TOKEN_BUCKETS,
        )
        self.clients_left = self._counter("clients_left", "Clients that left before their answer was complete.")
        self.clients_stalled = self._counter("clients_stalled", "Clients that were dropped because they did not read.")
        self.requests_refused = self._counter("requests_refused", "Requests that found the queue full.")
        self.requests_resumed = self._counter(
            "requests_resumed", "Requests that another engine went on with after one had died."
        )
        self.messages_dropped = self._counter("messages_dropped", "Messages of the engine that made no sense.")
        self._success = Counter(
            f"{_PREFIX}request_success",
            "Answers that ended, by reason.",
            ["model_name", "finished_reason"],
            registry=self._registry,
        )
        self._http_requests = Counter(
            "http_requests", "HTTP requests.", ["method", "handler", "status"], registry=self._registry
        )

    def show_worker(self, figures: Callable[[], WorkerFigures]) -> None:
        """Show what this worker holds, too."""
        collector = _WorkerCollector(self._model_name, figures)
        self._live.append(collector)
        self._registry.register(collector)

    def count_finished(self, reason: str) -> None:
        """One more answer that ended for `reason`."""
        self._success.labels(self._model_name, reason).inc()

    def count_http_request(self, method: str, handler: str, status: int) -> None:
        """One more HTTP request; `handler` is a path of ours, never one that a client made up."""
        self._http_requests.labels(method if method in _METHODS else "other", handler, str(status)).inc()

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        self.token_times.tell()
        source = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            source = CollectorRegistry()
            MultiProcessCollector(source)
            for collector in self._live:
                source.register(collector)
        shown = CollectorRegistry(auto_describe=False)
        shown.register(_WithAliases(source))
        return generate_latest(shown)

    def _counter(self, name: str, help_text: str) -> Counter:
        return Counter(_PREFIX + name, help_text, ["model_name"], registry=self._registry).labels(self._model_name)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
        histogram = Histogram(_PREFIX + name, help_text, ["model_name"], registry=self._registry, buckets=buckets)
        return histogram.labels(self._model_name)


class _WithAliases(Collector):
    """All metrics of a registry, and some of them a second time under the name that older dashboards read."""

    def __init__(self, source: CollectorRegistry) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        for metric in self._source.collect():
            yield metric
            alias = _ALIASES.get(metric.name.removeprefix(_PREFIX))
            if alias is not None:
                yield _renamed(metric, _PREFIX + alias)


def _renamed(metric: Metric, name: str) -> Metric:
    renamed = Metric(name, f"The older name of {metric.name}.", metric.type)
    renamed.samples = [sample._replace(name=name + sample.name.removeprefix(metric.name)) for sample in metric.samples]
    return renamed


class _EngineCollector(Collector):
    """The engine's own figures, as of its last message."""

    def __init__(self, model_name: str, engine_stats: Callable[[], EngineStats], status: ServerStatus) -> None:
        self._model_name = model_name
        self._engine_stats = engine_stats
        self._status = status

    def collect(self) -> Iterator[Metric]:
        stats = self._engine_stats()
        yield self._gauge("num_requests_running", "Requests in the running batch.", stats.num_running)
        yield self._gauge("num_requests_waiting", "Requests that wait.", stats.num_waiting)
        yield self._gauge("kv_cache_usage_perc", "Share of the KV cache in use, 1 is all.", stats.kv_cache_usage)
        yield self._total("num_preemptions", "Requests that lost their cache blocks.", stats.num_preemptions)
        yield self._total(
            "prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", stats.prefix_cache_queries
        )
        yield self._total("prefix_cache_hits", "Prompt tokens found in the prefix cache.", stats.prefix_cache_hits)
        yield self._total(
            "guided_forced_tokens", "Output tokens that a grammar left no choice about.", stats.num_forced_tokens
        )
        yield self._total(
            "guided_late_masks", "Times that a request sat out a step for want of its mask.", stats.num_late_masks
        )
        yield self._total("spec_decode_num_drafts", "Steps that verified guesses of a request.", stats.num_drafts)
        yield self._total("spec_decode_num_draft_tokens", "Tokens that were guessed.", stats.num_draft_tokens)
        yield self._total(
            "spec_decode_num_accepted_tokens", "Guessed tokens that proved right.", stats.num_accepted_tokens
        )
        yield self._total(
            "engine_messages_dropped", "Messages to the engine that made no sense.", stats.num_dropped_messages
        )
        yield self._total(
            "engine_restarts",
            "Engines that were started in the place of one that died.",
            self._status.num_engine_restarts,
        )
        yield self._total(
            "engine_invariant_violations",
            "Engines that ended because their accounts of requests and blocks contradicted themselves.",
            self._status.num_invariant_violations,
        )
        steps = HistogramMetricFamily(
            f"{_PREFIX}iteration_tokens_total", "Tokens computed in a step.", labels=["model_name"]
        )
        steps.add_metric([self._model_name], [("+Inf", stats.num_steps)], stats.num_step_tokens)
        yield steps

    def _gauge(self, name: str, help_text: str, value: float) -> Metric:
        family = GaugeMetricFamily(_PREFIX + name, help_text, labels=["model_name"])
        family.add_metric([self._model_name], value)
        return family

    def _total(self, name: str, help_text: str, value: float) -> Metric:
        family = CounterMetricFamily(_PREFIX + name, help_text, labels=["model_name"])
        family.add_metric([self._model_name], value)
        return family


class _WorkerCollector(Collector):
    """What the worker that answers the scrape holds; the label `pid` says which one it is."""

    def __init__(self, model_name: str, figures: Callable[[], WorkerFigures]) -> None:
        self._model_name = model_name
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        yield self._gauge("tasks", "Tasks of the event loop, this scrape among them.", figures.tasks)
        yield self._gauge("open_requests", "HTTP requests that are being answered.", figures.open_requests)
        yield self._gauge("queued_requests", "Requests without a first output yet.", figures.queued_requests)
        yield self._gauge("live_requests", "Requests that the engine has.", figures.live_requests)
        yield self._gauge("compilations", "Grammars that are not compiled yet.", figures.compilations)

    def _gauge(self, name: str, help_text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"{_PREFIX}worker_{name}", help_text, labels=["model_name", "pid"])
        family.add_metric([self._model_name, str(os.getpid())], value)
        return family


class HttpRequestCounter:
    """Counts every HTTP request by method, path and status; what is not ours of the first two counts as "other"."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, paths: Iterable[str], root_path: str) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = frozenset(paths)
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        status = LEFT_UNANSWERED

        # No coroutine of its own, here and in the other middleware: every token of a stream passes through all of them.
        def watched_send(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                count(status)
            return send(message)

        def count(status: int) -> None:
            path = scope["path"].removeprefix(self._root_path)
            self._metrics.count_http_request(scope["method"], path if path in self._paths else "other", status)

        try:
            await self._app(scope, receive, watched_send)
        finally:
            if status == LEFT_UNANSWERED:
                count(status)

"""Keys and their limits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from zqserve.server.admission.rate_limits import MAX_REMEMBERED, RateLimits
from zqserve.server.http.api_keys import ApiKey, KeyRing, read_key_file
from zqserve.server.http.errors import ApiError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_key_is_found_by_itself_or_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    digest = hashlib.sha256(b"second").hexdigest()
    path.write_text(f"keys: [{{name: one, key: first}}, {{name: two, sha256: {digest}, max_concurrent: 3}}]")
    ring = KeyRing(["fixed"], path)
    found = [ring.find([text]) for text in (b"first", b"second", b"fixed", b"third", b"")]
    assert [key and key.name for key in found] == ["one", "two", "", None, None]
    assert ring.find([b"wrong", b"second"]) == ApiKey("two", hashlib.sha256(b"second").digest(), None, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("keys: [{name: a}]", r"keys\[0\] needs either key or sha256"),
        ("keys: [{name: a, key: SECRET, sha256: SECRET}]", "either key or sha256"),
        ("keys: [{name: a, key: SECRET}, {name: a, key: SECRET}]", r"keys\[1\] needs a name of its own"),
        ("keys: [{name: '', key: SECRET}]", "name of its own"),
        ("keys: [{name: a, sha256: SECRET}]", "64 hex digits"),
        ("keys: [{name: a, key: ''}]", "must not be empty"),
        ("keys: [{name: a, key: SECRET, max_concurrent: 0}]", "max_concurrent must be at least 1"),
        ("keys: [{name: a, key: SECRET, rate: 3}]", "unknown field `rate`"),
        ("keys: {SECRET: 1}", "Expected `array`"),
        ("keys: [{name: a, key: 'SECRET}]", "not YAML"),
        ("", "Expected `object`"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_without_a_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        read_key_file(path)
    assert "SECRET" not in str(caught.value)


def status(limits: RateLimits, key: ApiKey) -> int:
    try:
        limits.enter(key)
    except ApiError as error:
        return error.status
    return 200


def test_a_rate_allows_a_minutes_worth_at_once_and_then_one_after_another() -> None:
    clock = Clock()
    limits, key = RateLimits(clock=clock), ApiKey("a", requests_per_minute=3)
    assert [status(limits, key) for _ in range(5)] == [200, 200, 200, 429, 429]
    assert status(limits, ApiKey("b", requests_per_minute=3)) == 200
    with pytest.raises(ApiError) as caught:
        limits.enter(key)
    assert caught.value.headers["retry-after"] == "20"
    clock.now += 20
    assert [status(limits, key) for _ in range(2)] == [200, 429]
    clock.now += 3600
    assert [status(limits, key) for _ in range(4)] == [200, 200, 200, 429]


def test_a_request_that_ends_makes_room_for_another() -> None:
    limits, key = RateLimits(), ApiKey("a", max_concurrent=2)
    leave = limits.enter(key)
    assert [status(limits, key) for _ in range(2)] == [200, 429]
    leave()
    assert [status(limits, key) for _ in range(2)] == [200, 429]


def test_workers_share_a_limit() -> None:
    clock = Clock()
    workers = [RateLimits(num_workers=2, clock=clock) for _ in range(2)]
    key = ApiKey("a", requests_per_minute=8, max_concurrent=6)
    granted = [status(limits, key) for limits in workers for _ in range(5)]
    assert granted.count(200) == 6


def test_keys_that_are_not_used_any_more_are_forgotten_and_no_limit_with_them() -> None:
    clock = Clock()
    limits = RateLimits(clock=clock)
    busy = ApiKey("busy", max_concurrent=1)
    limits.enter(busy)
    for number in range(4 * MAX_REMEMBERED):
        limits.enter(ApiKey(f"key {number}", requests_per_minute=60))()
        clock.now += 0.01
    assert len(limits) <= MAX_REMEMBERED + 200
    assert status(limits, busy) == 429

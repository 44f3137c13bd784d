"""What may stand in the log."""

from __future__ import annotations

import pytest

from zqserve.server.http.errors import to_api_error

SECRET = "what a client wrote\n2026-01-01 00:00:00 INFO a forged line"


def fail() -> None:
    raise KeyError(SECRET)


def test_an_unexpected_error_is_logged_with_its_place_and_without_what_it_says(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(KeyError) as caught:
        fail()
    assert to_api_error(caught.value).status == 500
    assert "KeyError" in caplog.text
    assert "in fail" in caplog.text
    assert "a client wrote" not in caplog.text
    assert "forged" not in caplog.text

"""Percentiles as `vllm bench serve` and numpy take them: linear between the two nearest values."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, nan
from statistics import fmean

PERCENTS = (50, 90, 99)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which that share of `values` lies; NaN of none."""
    if not values:
        return nan
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low, high = ordered[floor(place)], ordered[ceil(place)]
    return low + (high - low) * (place - floor(place))


def summary(values: Sequence[float], factor: float = 1.0) -> dict[str, float]:
    """Mean and the usual percentiles of the values times `factor`, such as 1000 for milliseconds."""
    named = {"mean": fmean(values) if values else nan}
    named |= {f"p{percent}": percentile(values, percent) for percent in PERCENTS}
    return {name: round(value * factor, 3) for name, value in named.items()}

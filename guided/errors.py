"""Why a grammar is refused. The server turns each of these into a 400 that names the place and the reason."""

from typing import Literal

GrammarFault = Literal["invalid", "unsupported", "unsatisfiable", "too_complex"]


class GrammarError(ValueError):
    """A grammar that is malformed, that is not supported, that nothing can satisfy, or that costs too much.

    Attributes:
        fault: which of the four.
        reason: one sentence for the user, without the place.
        location: a JSON pointer (`/properties/a`), a position in a pattern (`position 7`), or "" for the whole.
        keyword: the keyword or construct at fault (`multipleOf`, `(?=`), or "".
    """

    def __init__(self, fault: GrammarFault, reason: str, *, location: str = "", keyword: str = "") -> None:
        self.fault: GrammarFault = fault
        self.reason, self.location, self.keyword = reason, location, keyword
        place = f"at {location}: " if location else ""
        named = f"{keyword}: " if keyword else ""
        super().__init__(f"{place}{named}{reason}")

    def __reduce__(self) -> tuple:
        return _rebuild, (self.fault, self.reason, self.location, self.keyword)


def _rebuild(fault: GrammarFault, reason: str, location: str, keyword: str) -> GrammarError:
    return GrammarError(fault, reason, location=location, keyword=keyword)


class BudgetExceededError(Exception):
    """Work was stopped because its time is used up. Memo tables stay whole: the same call made again goes on."""

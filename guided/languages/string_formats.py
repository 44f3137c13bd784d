"""JSON Schema's string formats as languages.

    format_language("date-time")

A format is as strict as the strictest of its standard, the official test suite and `jsonschema`'s FormatChecker, so
that a text that is accepted here validates everywhere; where a standard cannot be told by a regular language, less is
accepted:

    time, date-time     no leap seconds (validators disagree)
    hostname            no label with `--` in third place: whether punycode decodes cannot be told
    idn-hostname        lower-case Latin, Greek, Cyrillic, kana, Han and Hangul; 12 characters a label
    regex               two levels of groups, and only what ECMAScript and Python both read alike
    relative-json-pointer   no number with a zero before its last digit
"""

from __future__ import annotations

from functools import lru_cache

from .language import Language

_HOUR_MINUTE = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_HOUR_MINUTE}:[0-5][0-9](?:\.[0-9]+)?(?:[Zz]|[+-]{_HOUR_MINUTE})"
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DAYS = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_DATE = f"(?:{_YEAR}-{_DAYS}|{_LEAP_YEAR}-02-29)"

_SECONDS = "[0-9]+S"
_MINUTES = f"[0-9]+M(?:{_SECONDS})?"
_CLOCK = f"T(?:[0-9]+H(?:{_MINUTES})?|{_MINUTES}|{_SECONDS})"
_MONTHS = "[0-9]+M(?:[0-9]+D)?"
_DURATION = f"P(?:[0-9]+W|(?:[0-9]+D|{_MONTHS}|[0-9]+Y(?:{_MONTHS})?)(?:{_CLOCK})?|{_CLOCK})"

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_H16 = "[0-9A-Fa-f]{1,4}"
_LS32 = f"(?:{_H16}:{_H16}|{_IPV4})"
_IPV6 = (
    "(?:"
    + "|".join(
        (
            f"(?:{_H16}:){{6}}{_LS32}",
            f"::(?:{_H16}:){{5}}{_LS32}",
            *(f"(?:(?:{_H16}:){{0,{n}}}{_H16})?::(?:{_H16}:){{{4 - n}}}{_LS32}" for n in range(5)),
            f"(?:(?:{_H16}:){{0,5}}{_H16})?::{_H16}",
            f"(?:(?:{_H16}:){{0,6}}{_H16})?::",
        )
    )
    + ")"
)

_HEX = "[0-9A-Fa-f]"
_UUID = f"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = rf"{_LABEL}(?:\.{_LABEL})*"
_PUNYCODE_LABEL = r"(?:[\s\S]*\.)?[^.]{2}--[\s\S]*"

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_QUOTED = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*"'
_ADDRESS_LITERAL = rf"\[(?:{_IPV4}|IPv6:{_IPV6})\]"

_IDN_CHARACTERS = "a-zß-öø-ÿα-ωа-яぁ-ゔァ-ヴ一-龥가-힣"
_IDN_LABEL = f"(?:[{_IDN_CHARACTERS}](?:[{_IDN_CHARACTERS}0-9-]{{0,10}}[{_IDN_CHARACTERS}0-9])?)"
_IDN_HOSTNAME = rf"{_IDN_LABEL}(?:\.{_IDN_LABEL}){{0,3}}"
_IDN_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+"
_IDN_QUOTED = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e\x80-\U0010ffff]|\\[\x20-\x7e])*"'

_UCS = (
    "\u00a0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef"
    + "".join(f"{chr(plane << 16)}-{chr((plane << 16) + 0xFFFD)}" for plane in range(1, 14))
    + "\U000e1000-\U000efffd"
)
_PRIVATE = "\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd"

_TEMPLATE_NAME = r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*"
_TEMPLATE_VARIABLE = rf"{_TEMPLATE_NAME}(?:\*|:[1-9][0-9]{{0,2}})?"
_TEMPLATE = (
    r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;="
    rf"{_UCS}]|%{_HEX}{{2}}|\{{[+#./;?&]?{_TEMPLATE_VARIABLE}(?:,{_TEMPLATE_VARIABLE})*\}})*"
)

_POINTER = r"(?:/(?:[^~/]|~[01])*)*"
_RELATIVE_POINTER = rf"(?:0|[1-9]+0?)(?:#|{_POINTER})"

_REGEX_ATOM = (
    r"(?:[^\\^$.|?*+()\[\]{}\x00-\x1f\x7f-\U0010ffff]|\.|\\[dDwWsSnrtfv]|\\[\\^$.|?*+()\[\]{}/]"
    r"|\[\^?(?:[A-Za-z0-9_ .,:;@#%+*/=!?<>'\"()$]|a-z|A-Z|0-9|\\[dwsnrt\\\]])+\])"
)
_REGEX_REPEAT = r"(?:[*+?]\??|\{[1-9]\}|\{[0-9],\})?"


def _regex_alternatives(piece: str) -> str:
    sequence = rf"\^?(?:{piece})*\$?"
    return rf"{sequence}(?:\|{sequence})*"


_REGEX_FLAT = f"{_REGEX_ATOM}{_REGEX_REPEAT}"
_REGEX_GROUP = rf"\((?:\?:)?{_regex_alternatives(_REGEX_FLAT)}\){_REGEX_REPEAT}"
_REGEX_DEEP = rf"\((?:\?:)?{_regex_alternatives(f'{_REGEX_FLAT}|{_REGEX_GROUP}')}\){_REGEX_REPEAT}"


@lru_cache(maxsize=64)
def format_language(name: str) -> Language | None:
    """The language of a format; None: the format is unknown."""
    if name in _SIMPLE:
        return _pattern(_SIMPLE[name])
    if name == "hostname":
        return _hostname()
    if name == "email":
        local = _pattern(rf"{_ATOM}(?:\.{_ATOM})*|{_QUOTED}") & Language.length(1, 64)
        return local + Language.literal("@") + (_hostname() | _pattern(_ADDRESS_LITERAL))
    if name == "idn-email":
        local = _pattern(rf"{_IDN_ATOM}(?:\.{_IDN_ATOM})*|{_IDN_QUOTED}") & Language.length(1, 16)
        return Language.union((local + Language.literal("@") + (_hostname() | _idn_hostname()), _known("email")))
    if name == "idn-hostname":
        return _idn_hostname() | _hostname()
    if name in ("uri", "uri-reference", "iri", "iri-reference"):
        return _resource_identifier(international=name.startswith("iri"), reference=name.endswith("reference"))
    return None


_SIMPLE = {
    "date-time": f"{_DATE}[Tt]{_TIME}",
    "date": _DATE,
    "time": _TIME,
    "duration": _DURATION,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "uuid": _UUID,
    "uri-template": _TEMPLATE,
    "json-pointer": _POINTER,
    "relative-json-pointer": _RELATIVE_POINTER,
    "regex": _regex_alternatives(f"{_REGEX_FLAT}|{_REGEX_GROUP}|{_REGEX_DEEP}"),
}


FORMATS = (
    *_SIMPLE,
    *("hostname", "email", "idn-email", "idn-hostname", "uri", "uri-reference", "iri", "iri-reference"),
)
"""The names of all that are known."""


def _pattern(pattern: str) -> Language:
    return Language.regex(pattern, "python")


def _known(name: str) -> Language:
    language = format_language(name)
    assert language is not None
    return language


@lru_cache(maxsize=1)
def _hostname() -> Language:
    return (_pattern(_HOSTNAME) & Language.length(1, 253)) - _pattern(_PUNYCODE_LABEL)


@lru_cache(maxsize=1)
def _idn_hostname() -> Language:
    return _pattern(_IDN_HOSTNAME) - _pattern(_PUNYCODE_LABEL)


def _resource_identifier(*, international: bool, reference: bool) -> Language:
    """RFC 3986, and RFC 3987 when international: an absolute one, or also a relative reference."""
    letters = r"A-Za-z0-9\-._~" + (_UCS if international else "")
    marks = r"!$&'()*+,;="
    escaped = f"%{_HEX}{{2}}"
    char = f"(?:[{letters}{marks}:@]|{escaped})"
    segments = f"(?:/{char}*)*"
    rooted = f"/(?:{char}+{segments})?"
    user = f"(?:(?:[{letters}{marks}:]|{escaped})*@)?"
    host = rf"(?:\[(?:{_IPV6}|v{_HEX}+\.[A-Za-z0-9\-._~{marks}:]+)\]|(?:[{letters}{marks}]|{escaped})*)"
    authority = f"//{user}{host}(?::[0-9]*)?{segments}"
    query = rf"(?:\?(?:{char}|[/?{_PRIVATE if international else ''}])*)?"
    ending = f"{query}(?:#(?:{char}|[/?])*)?"
    absolute = f"[A-Za-z][A-Za-z0-9+.-]*:(?:{authority}|{rooted}|{char}+{segments})?{ending}"
    if not reference:
        return _pattern(absolute)
    first = f"(?:[{letters}{marks}@]|{escaped})+"
    return _pattern(f"{absolute}|(?:{authority}|{rooted}|{first}{segments})?{ending}")

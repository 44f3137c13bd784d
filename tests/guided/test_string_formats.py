"""String formats: sound against `jsonschema`'s checker, and right about the cases that are often got wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.guided.languages.language import JointAutomaton, Language
from zqserve.guided.languages.string_formats import format_language

FORMATS = [
    "date-time",
    "date",
    "time",
    "duration",
    "email",
    "idn-email",
    "hostname",
    "idn-hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
    "uri-reference",
    "iri",
    "iri-reference",
    "uri-template",
    "json-pointer",
    "relative-json-pointer",
    "regex",
]

CASES = {
    "date": (
        ["2024-02-29", "2000-02-29", "1999-12-31"],
        ["2023-02-29", "1900-02-29", "2024-04-31", "0000-01-01", "১963-06-19"],
    ),
    "time": (["23:59:59Z", "12:00:00.123+23:59"], ["24:00:00Z", "12:60:00Z", "12:00:00", "12:00:00+24:00"]),
    "date-time": (
        ["1963-06-19T08:30:06.283185Z", "1963-06-19t08:30:06z"],
        ["1990-02-31T15:59:59Z", "2013-350T01:01:01Z"],
    ),
    "duration": (["P4DT12H30M5S", "P1Y", "PT36H", "P2W"], ["PT1D", "P", "P1YT", "P1Y2W", "P1Y2D", "4DT12H"]),
    "email": (
        ["joe.bloggs@example.com", '"joe bloggs"@example.com', "a@[127.0.0.1]"],
        [".a@b.c", "a..b@c", "a@", "a@b c"],
    ),
    "hostname": (["www.example.com", "a" * 63, "1.2"], ["-a.b", "a_b", "a" * 64, "a..b", "", "x" * 60 + ".y" * 100]),
    "ipv4": (["0.0.0.0", "255.255.255.255"], ["256.0.0.0", "1.2.3", "01.2.3.4", "1.2.3.4.5"]),
    "ipv6": (
        ["::", "::1", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4", "1::8"],
        ["1:2:3", "12345::", "1::2::3", "::1%eth0", ":::"],
    ),
    "uuid": (
        ["2EB8AA08-aa98-11ea-b4aa-73b441d16380"],
        ["2eb8aa08aa9811eab4aa73b441d16380", "2eb8aa08-aa98-11ea-b4aa-73b441d1638"],
    ),
    "uri": (
        ["http://foo.bar/?baz=qux#quux", "urn:oasis:names", "mailto:a@b.c", "ftp://[::1]:21/x%20y"],
        ["//foo.bar", "a b:c", "http:// x"],
    ),
    "uri-reference": (["/abc", "#frag", "", "//foo.bar"], ["\\\\WINDOWS\\share", "a b"]),
    "iri": (["http://ƒøø.ßår/?∂éœ=πîx#πîüx"], ["/abc", "http://a b"]),
    "json-pointer": (["", "/foo/bar~0/~1", "/é"], ["foo", "/~", "/~2"]),
    "relative-json-pointer": (["1", "0/foo", "2#"], ["-1/a", "01/a", "/foo"]),
    "uri-template": (["http://a/{term:1}/{?q*,lang}", ""], ["{", "{term:1}/{term", "{a,}"]),
    "regex": ([r"([abc])+\s+$", "^[a-z]{2}(?:x|y)*$"], ["^(abc]", "a**", "[b-a]", "(?P<n>x)"]),
    "idn-hostname": (["실례.테스트", "example.com"], ["〮실례", "-a", "a.א0"]),
    "idn-email": (["실례@실례.테스트"], ["2962", "@"]),
}


@pytest.mark.parametrize("name", FORMATS)
def test_examples_of_each_format(name):
    language = format_language(name)
    if name in CASES:
        valid, invalid = CASES[name]
        assert [text for text in valid if not language.contains(text)] == []
        assert [text for text in invalid if language.contains(text)] == []


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(FORMATS), st.randoms(use_true_random=False))
def test_whatever_is_accepted_passes_the_checker_of_jsonschema(name, choose):
    checker = pytest.importorskip("jsonschema").Draft202012Validator.FORMAT_CHECKER
    joint = JointAutomaton((format_language(name),))
    state, text = joint.start, ""
    for _ in range(150):
        if joint.accepted(state) and (not joint.arcs(state) or choose.random() < 0.1):
            break
        low, high, state = choose.choice(joint.arcs(state))
        text += chr(choose.randint(low, high))
    if joint.accepted(state):
        assert checker.conforms(text, name), text


def test_a_format_is_intersected_with_a_pattern_and_lengths():
    date = format_language("date-time")
    assert date.contains("2024-01-02T03:04:05Z")
    both = date & Language.regex("^19.*00Z$", "ecma") & Language.length(20, 22)
    assert both.contains(both.shortest())
    assert (date & Language.length(0, 19)).is_empty()
    assert (
        (format_language("uuid") & Language.length(36, 36) & Language.regex("^f{8}", "ecma"))
        .shortest()
        .startswith("ffffffff-")
    )


def test_an_unknown_format_is_none():
    assert format_language("grid") is None

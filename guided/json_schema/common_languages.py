"""Builds what many grammars need before the first of them comes: formats, Unicode classes, ready-made rows."""

from __future__ import annotations

from ..languages.char_set import python_class
from ..languages.number_blocks import load_number_blocks
from ..languages.regex_classes import property_set
from ..languages.string_formats import FORMATS, format_language
from ..languages.text_lowering import any_string_block
from .drafts import meta_schemas


def load_common_languages() -> None:
    """Takes some tenths of a second; without it the first grammar that needs one of these waits for it."""
    any_string_block(1)
    load_number_blocks()
    for letter in "dsw":
        python_class(letter)
    property_set("L")
    for name in FORMATS:
        format_language(name)
    meta_schemas()

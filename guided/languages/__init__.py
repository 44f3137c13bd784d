"""Regular languages of text: character sets, terms and their derivatives, regexes, formats, numbers."""

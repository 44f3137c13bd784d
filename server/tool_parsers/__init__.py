"""From the text of an answer to content and tool calls, and the grammars that hold calls to their form.

`formats.py` lists the formats in which models write calls. Each has a module with two things: a function that reads
calls in that format, for a `ToolCallParser` (`parser.py`), and the structural tag of answers that are such calls.
`tool_choice.py` chooses among them for a request.
"""

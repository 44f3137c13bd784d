"""The examples of docs/tool_calling.md."""

from __future__ import annotations

import json

from tests.docs.page import read_page, run_python
from tests.running_server import RunningServer

PAGE = read_page("docs/tool_calling.md")


def test_the_examples_call_stream_and_parse(tool_server: RunningServer) -> None:
    assert "`zqserve serve demo/model --tool-call-parser hermes`" in PAGE.text
    # The blocks are one script: each goes on where the last one ended.
    code = "\n".join(PAGE.blocks("python"))
    code = code.replace('api_key="none"', f'api_key="{tool_server.api_key}"')
    code = code.replace('model="demo/model"', 'model="demo"')
    lines = run_python(code, tool_server.url)
    reason, name, arguments = lines[0].split(" ", 2)
    assert (reason, name) == ("tool_calls", "get_weather")
    for text in (arguments, lines[-2]):
        assert set(json.loads(text)) == {"city", "days"}
    assert lines[-1] == 'I look it up. get_weather {"city": "Oslo", "days": 2}'

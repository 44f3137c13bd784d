"""The examples of docs/tool_calling.md are run as they stand there; only the port is another one."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from tests.running_server import ROOT, RunningServer

PAGE = (ROOT / "docs" / "tool_calling.md").read_text()
PAGE_URL = "http://127.0.0.1:8000"


def test_the_examples_call_stream_and_parse(tool_server: RunningServer) -> None:
    assert "`zqserve serve demo/model --tool-call-parser hermes`" in PAGE
    # The blocks are one script: each goes on where the last one ended.
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    code = code.replace(PAGE_URL, tool_server.url).replace('api_key="none"', f'api_key="{tool_server.api_key}"')
    code = code.replace('model="demo/model"', 'model="demo"')
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    reason, name, arguments = lines[0].split(" ", 2)
    assert (reason, name) == ("tool_calls", "get_weather")
    for text in (arguments, lines[-2]):
        assert set(json.loads(text)) == {"city", "days"}
    assert lines[-1] == 'I look it up. get_weather {"city": "Oslo", "days": 2}'

"""A server confined as a container confines it: the program of the image, for another user than root, on a root that is
read-only but for a temporary folder, and without a network.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.running_server import DEMO_MODEL, ROOT, RunningServer

CONTAINERFILE = (ROOT / "Containerfile").read_text()
USER = "10001"
CONFINE = """
set -e
echo "$WRITABLE" | while read -r folder; do mount --bind "$folder" "$folder"; done
mount -o remount,bind,ro /
if touch "$WITNESS" 2>/dev/null; then echo The root is not read-only; exit 3; fi
exec unshare --user --map-user "$0" --map-group "$0" "$@"
"""
"""Within namespaces of its own for users, mounts and the network."""


def _may_confine() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "-Urnm", "true"], capture_output=True).returncode == 0


def entry_point() -> list[str]:
    (words,) = re.findall(r"^ENTRYPOINT (\[.*\])$", CONTAINERFILE, re.MULTILINE)
    return json.loads(words)


def test_the_image_runs_the_module_for_an_ordinary_user_offline() -> None:
    assert entry_point() == ["python", "-m", "zqserve"]
    assert re.findall(r"^USER (.*)$", CONTAINERFILE, re.MULTILINE) == [USER]
    assert "HF_HUB_OFFLINE=1" in CONTAINERFILE
    assert re.search(r"^HEALTHCHECK .*\n.*/health", CONTAINERFILE, re.MULTILINE)
    assert re.findall(r"^EXPOSE (.*)$", CONTAINERFILE, re.MULTILINE) == ["8000"]


@pytest.fixture
def confined(tmp_path: Path) -> Iterator[tuple[RunningServer, httpx.Client]]:
    """The server, and a client on its socket."""
    folder = tmp_path / "writable"
    folder.mkdir()
    compiled = {path.parent for path in ROOT.rglob("*.nbi")}  # in the image too they can be written
    program = [sys.executable, *entry_point()[1:], "--model", str(DEMO_MODEL), "--uds", str(folder / "socket")]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "WRITABLE": "\n".join(map(str, [folder, *compiled])),
        "WITNESS": str(tmp_path / "witness"),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "-Urnm", "bash", "-c", CONFINE, USER, *program, "--kv-cache-memory", "16M"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    server = RunningServer(process, "http://localhost", folder / "log")
    transport = httpx.HTTPTransport(uds=str(folder / "socket"))
    with httpx.Client(transport=transport, base_url=server.url, timeout=60) as client:
        server.wait_until_healthy(client)
        yield server, client
    if process.poll() is None:
        server.stop()


@pytest.mark.skipif(not _may_confine(), reason="this system gives no namespaces to ordinary users")
def test_it_serves_and_ends_without_root_network_or_a_root_that_can_be_written(
    confined: tuple[RunningServer, httpx.Client],
) -> None:
    server, client = confined
    body = {"prompt": "The capital of France is", "max_tokens": 1, "temperature": 0}
    assert client.post("/v1/completions", json=body).json()["choices"][0]["text"] == " Paris"
    assert client.post("/v1/completions", json={**body, "guided_choice": ["A"]}).json()["choices"][0]["text"] == "A"
    assert client.get("/docs").status_code == 200
    networks = [Path(f"/proc/{process}/ns/net").readlink() for process in (server.process.pid, "self")]
    assert networks[0] != networks[1]
    assert server.stop() == 0

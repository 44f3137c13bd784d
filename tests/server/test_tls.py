"""HTTPS: certificates that the test makes, clients that show one, files that are replaced while the server runs."""

from __future__ import annotations

import contextlib
import json
import shutil
import ssl
import subprocess
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.faults.processes import wait_until
from tests.running_server import API_KEY, RunningServer, start_server

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
            *("-subj", f"/CN={name}", "-keyout", str(self._key), "-out", str(self.certificate)),
        )

    def issue(self, path: Path, name: str) -> None:
        """Write a certificate for 127.0.0.1 and its key into `path`, in one piece."""
        parts = [path.with_suffix(suffix) for suffix in (".request", ".extensions", ".crt", ".key")]
        request, extensions, certificate, key = parts
        extensions.write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request)),
        )
        _openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key)),
            *("-CAcreateserial", "-days", "2", "-extfile", str(extensions), "-out", str(certificate)),
        )
        whole = path.with_suffix(".new")
        whole.write_bytes(certificate.read_bytes() + key.read_bytes())
        whole.replace(path)

    def client(self, certificate: Path | None = None) -> httpx.Client:
        """A client that trusts this authority, and shows a certificate where it has one."""
        context = ssl.create_default_context(cafile=self.certificate)
        if certificate is not None:
            context.load_cert_chain(certificate)
        return httpx.Client(verify=context, timeout=60)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder, "authority")


@pytest.fixture(scope="module")
def client(folder: Path, authority: Authority) -> httpx.Client:
    authority.issue(folder / "client.pem", "client")
    return authority.client(folder / "client.pem")


@pytest.fixture(scope="module")
def server(folder: Path, authority: Authority, client: httpx.Client) -> Iterator[RunningServer]:
    authority.issue(folder / "server.pem", "first")
    log_config = folder / "logging.json"
    log_config.write_text(
        json.dumps(
            {
                "version": 1,
                "formatters": {"short": {"format": "SHORT %(levelname)s %(message)s"}},
                "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "short"}},
                "root": {"level": "INFO", "handlers": ["own"]},
            }
        )
    )
    server = start_server(
        folder / "log",
        *("--ssl-certfile", str(folder / "server.pem"), "--ssl-keyfile", str(folder / "server.pem")),
        *("--ssl-ca-certs", str(authority.certificate), "--ssl-cert-reqs", "2", "--enable-ssl-refresh"),
        *("--kv-cache-memory", "16M", "--log-config-file", str(log_config)),
        wait=False,
    )
    server.url = server.url.replace("http:", "https:")
    client.base_url = server.url
    server.wait_until_healthy(client)
    yield server
    assert server.stop() == 0


def test_the_sdk_speaks_https_and_checks_the_certificate(server: RunningServer, client: httpx.Client) -> None:
    sdk = openai.OpenAI(base_url=f"{server.url}/v1", api_key=API_KEY, http_client=client)
    assert sdk.completions.create(model="demo", prompt="The", max_tokens=2).usage is not None
    events = list(sdk.completions.create(model="demo", prompt="The", max_tokens=2, stream=True))
    assert events[-1].choices[0].finish_reason == "length"


def test_a_client_without_a_certificate_or_without_trust_gets_nothing(
    server: RunningServer, folder: Path, authority: Authority
) -> None:
    with pytest.raises(httpx.TransportError):
        authority.client().get(f"{server.url}/health")
    stranger = Authority(folder, "stranger")
    with pytest.raises(httpx.TransportError, match="verify failed"):
        stranger.client(folder / "client.pem").get(f"{server.url}/health")
    stranger.issue(folder / "strange-client.pem", "stranger")
    with pytest.raises(httpx.TransportError):
        authority.client(folder / "strange-client.pem").get(f"{server.url}/health")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_two_versions_of_tls_are_spoken(
    server: RunningServer, folder: Path, authority: Authority, version: ssl.TLSVersion
) -> None:
    context = ssl.create_default_context(cafile=authority.certificate)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # or this side would not even try the oldest
    context.load_cert_chain(folder / "client.pem")
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = context.maximum_version = version
    with httpx.Client(verify=context, timeout=60) as fixed:
        if version < ssl.TLSVersion.TLSv1_2:
            with pytest.raises(httpx.ConnectError, match=r"handshake failure|protocol version"):
                fixed.get(f"{server.url}/health")
        else:
            assert fixed.get(f"{server.url}/health").status_code == 200


def test_all_processes_log_as_the_file_says(server: RunningServer) -> None:
    wait_until(lambda: "Ready." in server.log.read_text())
    lines = server.log.read_text().splitlines()
    assert any(line.startswith("SHORT INFO Ready. Try: curl https://") for line in lines)
    assert any(line.startswith("SHORT INFO Loaded") for line in lines)
    assert all(line.startswith("SHORT ") for line in lines if "INFO" in line)


def test_a_new_certificate_is_used_without_a_restart(
    server: RunningServer, folder: Path, authority: Authority, client: httpx.Client
) -> None:
    assert _name_shown(server, folder, authority) == "first"
    body = {"prompt": "The", "max_tokens": 1500, "ignore_eos": True, "stream": True}
    with client.stream("POST", "/v1/completions", json=body, headers=server.headers) as response:
        lines = response.iter_lines()
        next(lines)
        authority.issue(folder / "server.pem", "second")
        deadline = time.monotonic() + 240
        name = ""
        while name != "second":
            assert time.monotonic() < deadline, server.log.read_text()[-3000:]
            time.sleep(0.2)
            with contextlib.suppress(httpx.RemoteProtocolError):  # a connection that waited for the worker that ends
                name = _name_shown(server, folder, authority)
        assert [line for line in lines if line][-1] == "data: [DONE]"  # of the worker that was replaced
    answer = client.post("/v1/completions", json={"prompt": "The", "max_tokens": 2}, headers=server.headers)
    assert answer.status_code == 200


def _name_shown(server: RunningServer, folder: Path, authority: Authority) -> str:
    """Whose certificate the server shows to a new connection."""
    with authority.client(folder / "client.pem") as fresh, fresh.stream("GET", f"{server.url}/health") as response:
        connection = response.extensions["network_stream"].get_extra_info("ssl_object")
        subject = dict(pair for (pair,) in connection.getpeercert()["subject"])
        return subject["commonName"]

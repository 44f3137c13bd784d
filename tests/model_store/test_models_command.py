"""`zqserve models`: what it says of a cache made from the demo model, of damaged models, and what it fetches."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from tests.engine_core.tiny_models import save_model
from tests.running_server import DEMO_MODEL
from zqserve import LLM, SamplingParams
from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.serving_core import build_core
from zqserve.model_store.cli import main
from zqserve.model_store.description import describe

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOAD_TORCH = "import sys; from zqserve.model_store.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"


@dataclass
class Shown:
    """What a command printed, and its exit status."""

    stdout: str
    stderr: str
    returncode: int


def run(*arguments: str) -> Shown:
    """`zqserve models …` in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(["models", *arguments])
    return Shown(out.getvalue(), err.getvalue(), status)


def run_program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own: the hub's client reads its environment when it is imported."""
    return subprocess.run(
        [sys.executable, "-m", "zqserve", "models", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )


def in_cache(cache: Path, name: str, source: Path, revision: str = "main") -> Path:
    """Put a model's directory into a cache, in the hub's layout."""
    folder = cache / ("models--" + name.replace("/", "--"))
    snapshot = folder / "snapshots" / COMMIT
    for file in sorted(source.iterdir()):
        content = file.read_bytes()
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        snapshot.mkdir(parents=True, exist_ok=True)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    (folder / "refs").mkdir()
    (folder / "refs" / revision).write_text(COMMIT)
    return snapshot


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights, with the demo model's tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    config = BertConfig(
        vocab_size=2048, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    BertModel(config).save_pretrained(folder)
    shutil.copy(DEMO_MODEL / "tokenizer.json", folder)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    in_cache(folder, "acme/demo", DEMO_MODEL)
    in_cache(folder, "acme/encoder", encoder, revision="v1")
    return folder


def test_list_shows_name_kind_size_and_date_of_cached_models(cache: Path) -> None:
    shown = run("list", "--download-dir", str(cache))
    header, *rows = [line.split() for line in shown.stdout.splitlines()]
    assert header == ["NAME", "REVISION", "KIND", "SIZE", "MODIFIED"]
    assert [row[:3] for row in rows] == [["acme/demo", "main", "generate"], ["acme/encoder", "v1", "embed"]]
    megabytes = sum(file.stat().st_size for file in DEMO_MODEL.iterdir()) / 2**20
    assert rows[0][3:5] == [f"{megabytes:.1f}", "MB"]
    assert run_program("list", HF_HUB_CACHE=str(cache)).stdout == shown.stdout


def test_list_shows_models_of_folders(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "unfinished").mkdir()
    shutil.copytree(encoder, tmp_path / "model")
    shown = run("list", str(tmp_path), str(DEMO_MODEL))
    assert [line.split()[0] for line in shown.stdout.splitlines()[1:]] == [str(tmp_path / "model"), str(DEMO_MODEL)]
    absent = run("list", str(tmp_path / "absent"))
    assert absent.returncode == 1
    assert "is no folder" in absent.stderr


def test_list_of_an_empty_cache_says_how_to_get_a_model(tmp_path: Path) -> None:
    assert "zqserve models pull" in run("list", "--cache-dir", str(tmp_path / "absent")).stdout


def test_show_says_what_a_cached_model_is(cache: Path) -> None:
    shown = run("show", "acme/demo", "--download-dir", str(cache))
    assert shown.returncode == 0
    config = json.loads((DEMO_MODEL / "config.json").read_text())
    for said in (
        *("LlamaForCausalLM", "generate", f"{config['max_position_embeddings']} tokens", "default", "bfloat16"),
        *("can be served", f"models--acme--demo/snapshots/{COMMIT}"),
    ):
        assert said in shown.stdout
    encoder = run("show", "acme/encoder", "--revision", "v1", "--download-dir", str(cache))
    assert "BertModel" in encoder.stdout
    assert "a token" not in encoder.stdout
    assert "chat requests need --chat-template" in encoder.stdout


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_estimated_cache_is_what_the_engine_takes(dtype: Any) -> None:
    (line,) = [line for line in run("show", str(DEMO_MODEL), "--dtype", dtype).stdout.splitlines() if "cache" in line]
    kilobytes = float(line.split()[1])
    core = build_core(EngineConfig(model=str(DEMO_MODEL), dtype=dtype, kv_cache_memory_bytes=2**20))
    assert core.max_model_len == 2**20 / (kilobytes * 2**10)  # lowered to what the cache holds


@pytest.mark.parametrize("name", ["Gemma", "GPT2", "GPTBigCode", "DeepseekV3"])
def test_estimated_cache_is_right_for_models_with_other_heads(name: str, tmp_path: Path) -> None:
    directory = save_model(name, tmp_path)
    shutil.copy(DEMO_MODEL / "tokenizer.json", directory)
    num_bytes = describe(directory).cache_bytes_per_token
    assert num_bytes is not None
    for spare_bytes, num_tokens in ((0, 160), (-1, 144)):  # in blocks of 16
        config = EngineConfig(model=str(directory), kv_cache_memory_bytes=160 * num_bytes + spare_bytes, num_threads=1)
        assert build_core(config).max_model_len == num_tokens


def test_show_of_an_unknown_name_says_how_to_get_it(cache: Path) -> None:
    shown = run("show", "acme/absent", "--download-dir", str(cache))
    assert shown.returncode == 1
    assert "zqserve models pull acme/absent" in shown.stderr


def test_check_passes_a_whole_model(cache: Path) -> None:
    for arguments in ((str(DEMO_MODEL),), ("acme/demo", "--download-dir", str(cache))):
        checked = run("check", *arguments)
        assert checked.returncode == 0
        assert checked.stdout.split(maxsplit=1) == ["verdict", "can be served\n"]


def test_a_cached_model_is_loaded_by_its_name(cache: Path) -> None:
    llm = LLM("acme/demo", download_dir=cache, num_gpu_blocks_override=32)
    greedy = SamplingParams(temperature=0, max_tokens=1)
    assert llm.generate("The capital of France is", greedy, use_tqdm=False)[0].outputs[0].text == " Paris"
    with pytest.raises(ValueError, match="at revision v1"):
        LLM("acme/demo", download_dir=cache, revision="v1")
    with pytest.raises(ValueError, match=r"'acme/demo'.*at revision v2"):
        LLM("acme/demo", download_dir=cache, tokenizer_revision="v2")
    borrowed = LLM(
        "acme/demo", tokenizer="acme/encoder", tokenizer_revision="v1", download_dir=cache, load_format="dummy"
    )
    assert borrowed.get_tokenizer().encode("The capital") == llm.get_tokenizer().encode("The capital")


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def index_of_absent_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "absent.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def index_of_absent_tensor(folder: Path) -> None:
    save_file({"b": torch.zeros(1)}, folder / "model.safetensors")
    index = {"weight_map": {"a": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def no_safetensors_at_all(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"<html>not found</html>")


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def unknown_type(folder: Path) -> None:
    change_config(folder, model_type="acme", architectures=["AcmeForCausalLM"], auto_map={"AutoConfig": "acme.Config"})


def encoder_decoder(folder: Path) -> None:
    change_config(folder, is_encoder_decoder=True)


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def wrong_defaults(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"temperature": -1}')


def dangling_link(folder: Path) -> None:
    (folder / "merges.txt").symlink_to("../../blobs/absent")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_weights, "it was not written or fetched whole"),
        (no_weights, "There are no weights"),
        (index_of_absent_shard, "absent.safetensors is missing"),
        (index_of_absent_tensor, "lacks 1 tensors of the index, such as a"),
        (no_safetensors_at_all, "model.safetensors is no safetensors file"),
        (no_config, "There is no config.json"),
        (broken_config, "config.json cannot be read"),
        (unknown_type, "code of its own, which is never run"),
        (encoder_decoder, "encoder-decoder"),
        (no_tokenizer, "There is no tokenizer.json"),
        (wrong_defaults, "generation_config.json: temperature"),
        (dangling_link, "merges.txt points to"),
    ],
)
def test_check_names_what_is_wrong(damage: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, folder)
    damage(folder)
    checked = run("check", str(folder))
    assert checked.returncode == 1
    (problem,) = [line for line in checked.stdout.splitlines() if line.startswith("problem")]
    assert said in problem
    assert "cannot be served" in checked.stdout


@pytest.mark.parametrize("arguments", [["models", "list", str(DEMO_MODEL)], ["models", "show", str(DEMO_MODEL)]])
def test_list_and_show_do_without_torch(arguments: list[str]) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", LOAD_TORCH, *arguments], capture_output=True, text=True, check=True, timeout=300
    )
    assert shown.stdout.split()[-1] == "False"


def test_mistakes_in_the_command_are_named() -> None:
    unknown = run("frobnicate")
    assert unknown.returncode == 2
    assert "list" in unknown.stderr
    assert run("show").returncode == 2


class Hub(ThreadingHTTPServer):
    """A hub of one model, the demo model with some files beside it that serving does not need."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.files = {file.name: file.read_bytes() for file in DEMO_MODEL.iterdir()}
        self.files |= {"pytorch_model.bin": b"twice", "model.onnx": b"other", "modeling_acme.py": b"raise SystemExit"}
        self.fetched: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _HubHandler(BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, with_body: bool) -> None:
        path, hub = self.path.split("?")[0], self.server
        api, resolve = "/api/models/acme/demo", f"/acme/demo/resolve/{COMMIT}/"
        if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            siblings = [{"rfilename": name} for name in hub.files]
            self._send(json.dumps({"id": "acme/demo", "sha": COMMIT, "siblings": siblings}).encode(), with_body)
        elif path.startswith(f"{api}/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(body), "oid": "0"} for name, body in hub.files.items()
            ]
            self._send(json.dumps(entries).encode(), with_body)
        elif path.startswith(resolve) and path.removeprefix(resolve) in hub.files:
            name = path.removeprefix(resolve)
            if with_body:
                hub.fetched.append(name)
            body = hub.files[name]
            etag = hashlib.sha256(body).hexdigest()
            self._send(body, with_body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"})
        elif path.startswith("/api/models/acme/gated"):
            self._send(b"{}", with_body, {"X-Error-Code": "GatedRepo"}, status=403)
        elif path.startswith(f"{api}/revision/"):
            self._send(b"{}", with_body, {"X-Error-Code": "RevisionNotFound"}, status=404)
        else:
            self._send(b"{}", with_body, {"X-Error-Code": "RepoNotFound"}, status=404)

    def _send(self, body: bytes, with_body: bool, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.shutdown()


def test_pull_fetches_what_serving_needs_and_it_can_be_served(hub: Hub, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    pulled = run_program("pull", "acme/demo", **environment)
    assert pulled.returncode == 0, pulled.stderr
    assert "can be served" in pulled.stdout
    assert "%" in pulled.stderr  # the progress bars
    directory = Path(pulled.stdout.splitlines()[0])
    assert sorted(file.name for file in directory.iterdir()) == sorted(file.name for file in DEMO_MODEL.iterdir())
    assert (directory / "model.safetensors").read_bytes() == (DEMO_MODEL / "model.safetensors").read_bytes()
    assert run_program("list", **environment).stdout.splitlines()[1].split()[:3] == ["acme/demo", "main", "generate"]
    fetched = list(hub.fetched)
    again = run_program("pull", "acme/demo", "--revision", "main", **environment)
    assert again.returncode == 0
    assert hub.fetched == fetched


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["acme/absent"], "There is no acme/absent on the hub"),
        (["acme/gated"], "--hf-token"),
        (["acme/demo", "--revision", "v9"], "has no revision 'v9'"),
        (["too/many/slashes"], "is no name of the hub"),
    ],
)
def test_pull_says_why_the_hub_gives_nothing(hub: Hub, arguments: list[str], said: str, tmp_path: Path) -> None:
    pulled = run_program("pull", *arguments, "--download-dir", str(tmp_path), HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0")
    assert pulled.returncode == 1
    assert said in pulled.stderr
    assert "Traceback" not in pulled.stderr


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}, "The hub cannot be reached"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
    ],
)
def test_pull_without_a_network_says_what_to_do(environment: dict[str, str], said: str, tmp_path: Path) -> None:
    pulled = run_program("pull", "acme/demo", "--download-dir", str(tmp_path), **environment)
    assert pulled.returncode == 1
    assert said in pulled.stderr
    assert "Traceback" not in pulled.stderr

"""The command line of the model store: `zqserve models list`, `show`, `pull`, `check`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from ..engine_core.config import Dtype
from ..engine_core.errors import UnsupportedModelError
from ..server.engine_link.model_info import resolve_model
from .cache import StoredModel, cached_models, models_in
from .description import ModelDescription, describe
from .inspection import Finding, inspect

FAILURE = 1
USAGE_ERROR = 2

_CacheDir = Annotated[Path | None, Parameter(name=("--download-dir", "--cache-dir"))]
_Revision = Annotated[str | None, Parameter(name="--revision")]


def main(argv: Sequence[str]) -> int:
    """Run `models …`; 0, 1 when it failed or found a problem, 2 for a mistake in the command line."""
    app = App(
        name="zqserve models",
        help="The models of this machine: those in the Hugging Face cache, and directories.",
        version_flags=(),
        result_action="return_value",
        print_error=False,
        exit_on_error=False,
    )
    app.command(list_models, name="list")
    app.command(show)
    app.command(pull)
    app.command(check)
    try:
        return app(list(argv[1:])) or 0
    except CycloptsError as error:
        print(f"zqserve models: {error}", file=sys.stderr)
        return USAGE_ERROR
    except (OSError, ValueError, UnsupportedModelError) as error:
        print(f"zqserve models: {error}", file=sys.stderr)
        return FAILURE


def list_models(*folders: Path, download_dir: _CacheDir = None) -> int:
    """List the models in the cache: name, kind, size, and when its last file came.

    Parameters
    ----------
    folders
        Directories of models, or folders of such, to list instead of the cache.
    download_dir
        Another cache than HF_HUB_CACHE.
    """
    models = [model for folder in folders for model in models_in(folder)] if folders else cached_models(download_dir)
    rows = [("NAME", "REVISION", "KIND", "SIZE", "MODIFIED"), *map(_row, models)]
    if len(rows) == 1:
        print("There are no models. `zqserve models pull NAME` fetches one from the hub.")
        return 0
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def show(model: str, /, *, revision: _Revision = None, dtype: Dtype = "auto", download_dir: _CacheDir = None) -> int:
    """Show what a model is and what serving it takes.

    Parameters
    ----------
    model
        Directory, or hub name that is in the cache.
    revision
        Branch, tag or commit of a hub name.
    dtype
        Type of the weights that memory is estimated for, as the server's --dtype.
    download_dir
        Another cache than HF_HUB_CACHE.
    """
    directory = Path(resolve_model(model, revision, download_dir))
    findings = inspect(directory)
    print(f"name          {model}\npath          {directory}")
    if not any(finding.stops for finding in findings):
        _print_description(describe(directory, dtype))
    _print_findings(findings)
    return 0


def pull(
    name: str,
    /,
    *,
    revision: _Revision = None,
    hf_token: Annotated[str | None, Parameter(env_var="HF_TOKEN", show_env_var=True)] = None,
    download_dir: _CacheDir = None,
) -> int:
    """Fetch a model from the Hugging Face hub into the cache; what is there already is not fetched again.

    Parameters
    ----------
    name
        Hub name, such as org/model.
    revision
        Branch, tag or commit.
    hf_token
        For models that are gated or private.
    download_dir
        Another cache than HF_HUB_CACHE.
    """
    from .pull import PullError, pull  # the hub's client takes a second that the other commands do not need

    try:
        directory = pull(name, revision, hf_token, download_dir)
    except PullError as error:
        print(f"zqserve models: {error}", file=sys.stderr)
        return FAILURE
    print(directory)
    findings = inspect(directory)
    _print_findings(findings)
    return FAILURE if any(finding.stops for finding in findings) else 0


def check(model: str, /, *, revision: _Revision = None, download_dir: _CacheDir = None) -> int:
    """Check a model's files: that all are there and whole, and that nothing speaks against serving it.

    Parameters
    ----------
    model
        Directory, or hub name that is in the cache.
    revision
        Branch, tag or commit of a hub name.
    download_dir
        Another cache than HF_HUB_CACHE.
    """
    findings = inspect(Path(resolve_model(model, revision, download_dir)))
    _print_findings(findings)
    return FAILURE if any(finding.stops for finding in findings) else 0


def _row(model: StoredModel) -> tuple[str, ...]:
    modified = time.strftime("%Y-%m-%d %H:%M", time.localtime(model.modified))
    return (model.name, model.revision or "-", model.kind, _size(model.num_bytes), modified)


def _print_description(model: ModelDescription) -> None:
    templates = ", ".join(model.chat_templates) or "none"
    parameters = f"{model.num_parameters:,}" if model.num_parameters else "not known before loading"
    lines = [
        f"architecture  {model.architecture}",
        f"kind          {model.kind}",
        f"context       {model.context_length} tokens",
        f"vocabulary    {model.vocab_size} tokens",
        f"template      {templates}",
        f"parameters    {parameters}",
        f"memory        {_size(model.weight_bytes)} of weights in {model.dtype}",
    ]
    per_token = model.cache_bytes_per_token
    if per_token is not None:
        longest = _size(per_token * model.context_length)
        lines.append(f"cache         {_size(per_token)} a token, {longest} for one request of the whole context")
    print("\n".join(lines))


def _print_findings(findings: list[Finding]) -> None:
    for finding in findings:
        print(f"{'problem' if finding.stops else 'note':<14}{finding.text}")
    if not any(finding.stops for finding in findings):
        print(f"{'verdict':<14}can be served")
    else:
        print(f"{'verdict':<14}cannot be served")


def _size(num_bytes: int) -> str:
    """Bytes for people: 940 B, 12.5 KB, 1.2 GB; powers of 1024."""
    size = float(num_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"

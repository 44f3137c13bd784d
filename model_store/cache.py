"""The models in the Hugging Face cache, or in a folder of model directories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from ..engine_core.errors import UnsupportedModelError
from ..engine_core.serving_mode import ServingMode, serving_mode


@dataclass(frozen=True)
class StoredModel:
    """A model on this machine."""

    name: str
    """Hub name, or path of a directory."""
    revision: str
    """Branches and tags that point to it, else the beginning of the commit; "" for a directory."""
    path: Path
    num_bytes: int
    modified: float
    """When its last file came, in seconds of `time.time()`."""

    @property
    def kind(self) -> str:
        """What it is served for without flags."""
        if not (self.path / "config.json").is_file():
            return "incomplete"
        try:
            return kind_name(serving_mode(self.path))
        except (UnsupportedModelError, ValueError):
            return "unsupported"


def kind_name(mode: ServingMode) -> str:
    """A word for what a model does: generate, embed, classify, token_classify."""
    return "generate" if mode.generates else mode.pooling or "none"


def cached_models(cache_dir: Path | None = None) -> Iterator[StoredModel]:
    """Every revision of every model in the cache, by name. None where there is no cache yet."""
    try:
        found = scan_cache_dir(cache_dir)
    except CacheNotFound:
        return
    for repo in sorted(found.repos, key=lambda repo: repo.repo_id):
        if repo.repo_type != "model":
            continue
        for revision in sorted(repo.revisions, key=lambda revision: revision.last_modified):
            yield StoredModel(
                name=repo.repo_id,
                revision=",".join(sorted(revision.refs)) or revision.commit_hash[:8],
                path=revision.snapshot_path,
                num_bytes=revision.size_on_disk,
                modified=revision.last_modified,
            )


def models_in(folder: Path) -> Iterator[StoredModel]:
    """The folder itself when it is a model, else those right below it. Raises ValueError when it is no folder."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder.")
    candidates = [folder] if (folder / "config.json").is_file() else sorted(folder.iterdir())
    for path in candidates:
        if (path / "config.json").is_file():
            files = [file.stat() for file in path.rglob("*") if file.is_file()]
            yield StoredModel(
                name=str(path),
                revision="",
                path=path,
                num_bytes=sum(file.st_size for file in files),
                modified=max(file.st_mtime for file in files),
            )

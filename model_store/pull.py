"""Fetches a model from the Hugging Face hub into the cache: `zqserve models pull`."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

NEVER_NEEDED = ["*.py", "*.onnx", "*.gguf", "*.h5", "*.msgpack", "*.ot", "onnx/*", "openvino/*", "original/*"]
"""Files of other frameworks, and code, which is never run."""
BESIDE_SAFETENSORS = ["*.bin", "*.pt", "*.pth"]
"""The same weights again, in a form that loads slower."""


class PullError(Exception):
    """The model could not be fetched; the message says why and what to do."""


def pull(name: str, revision: str | None, token: str | None, cache_dir: Path | None) -> Path:
    """Fetch what serving needs, with a progress bar; the directory in the cache. Raises `PullError`.

    What is there already is not fetched again, and what was broken off goes on.
    """
    at = f" at revision {revision}" if revision else ""
    try:
        info = HfApi().model_info(name, revision=revision, token=token)
        files = [sibling.rfilename for sibling in info.siblings or ()]
        ignored = list(NEVER_NEEDED)
        if any(file.endswith(".safetensors") for file in files):
            ignored += BESIDE_SAFETENSORS
        return Path(
            snapshot_download(name, revision=revision, token=token, cache_dir=cache_dir, ignore_patterns=ignored)
        )
    except HFValidationError as error:
        raise PullError(f"{name!r} is no name of the hub: {error}") from None
    except GatedRepoError:
        raise PullError(
            f"{name}{at} is gated: accept its terms on the hub's page of it, and give --hf-token or set HF_TOKEN."
        ) from None
    except RevisionNotFoundError:
        raise PullError(f"{name} has no revision {revision!r}.") from None
    except RepositoryNotFoundError:
        raise PullError(f"There is no {name} on the hub, or it is private and needs --hf-token.") from None
    except OfflineModeIsEnabled:
        raise PullError("HF_HUB_OFFLINE is set: nothing can be fetched.") from None
    except HfHubHTTPError as error:
        raise PullError(f"The hub does not give {name}{at}: {error}") from None
    except Exception as error:  # of the HTTP library below the hub's client, which is not the same in all its versions
        raise PullError(
            f"The hub cannot be reached ({_first_line(error)}). Without a network, copy the model's directory here and "
            "serve it by its path."
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

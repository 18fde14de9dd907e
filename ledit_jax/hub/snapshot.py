"""A model of the hub on the disk, by huggingface_hub, with its errors in a line of ours.

huggingface_hub is imported here alone, and when it is needed.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ledit_jax.errors import CheckpointError, LEDiTError, named
from ledit_jax.files.local_copy import cache_folder
from ledit_jax.files.refusals import REFUSALS, writing
from ledit_jax.hub.names import HubName


class Unreachable(LEDiTError):
    """The hub does not answer, or is not to be asked. The message says why."""


@dataclass(frozen=True)
class Access:
    """How the hub is asked."""

    token: str | None = None
    """By default that of HF_TOKEN or of a login."""
    cache_dir: str | None = None
    """Of downloads and of what is converted; by default where HF_HOME says."""
    local_files_only: bool = False
    """Take what is in the cache, and do not ask."""

    @property
    def converted(self) -> Path:
        """The folder of what was converted."""
        return cache_folder(self.cache_dir)


def list_files(name: HubName, access: Access) -> tuple[str, list[str], str]:
    """(commit, names of all files, licence or "") of a model. Raises Unreachable, and CheckpointError where the hub
    refuses."""
    from huggingface_hub import HfApi, constants

    if access.local_files_only or constants.HF_HUB_OFFLINE:
        raise Unreachable("local_files_only" if access.local_files_only else "HF_HUB_OFFLINE")
    with _explained(name):
        api = HfApi(token=access.token, endpoint=constants.ENDPOINT)
        info = api.model_info(name.repo, revision=name.revision)
    card = info.card_data.to_dict() if info.card_data else {}
    said = card.get("license")
    return info.sha, [file.rfilename for file in info.siblings or ()], said if isinstance(said, str) else ""


def download(name: HubName, revision: str, files: Sequence[str], access: Access) -> Path:
    """The folder with these files; what an earlier call left unfinished goes on. Errors as `list_files`.

    Fetched by the name of a branch, it is found by that without a network; by a commit, it is certainly that.
    """
    return _snapshot(name, access, revision=revision, allow_patterns=[_literal(file) for file in files])


def find_downloaded(name: HubName, access: Access) -> Path:
    """The folder of a revision as it is in the cache, maybe in part. Raises CheckpointError where it is not there."""
    return _snapshot(name, access, revision=name.revision, local_files_only=True, allow_patterns=[])


def _snapshot(name: HubName, access: Access, **options) -> Path:
    from huggingface_hub import constants, snapshot_download

    where = dict(cache_dir=access.cache_dir, token=access.token, endpoint=constants.ENDPOINT)
    with writing(Path(access.cache_dir or constants.HF_HUB_CACHE)), _explained(name):
        return Path(snapshot_download(name.repo, **where, **options))


def _literal(file: str) -> str:
    """As a pattern that means this file alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in file)


@contextlib.contextmanager
def _explained(name: HubName) -> Iterator[None]:
    from huggingface_hub import errors

    try:
        yield
    except LEDiTError:
        raise
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{name} is gated: accept its terms on its page, then give token or set HF_TOKEN, or run `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(
            f"{name.repo} has no revision {name.revision}: give a branch, a tag or a commit"
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise CheckpointError(
            f"{name} is neither a folder here nor a model of the hub that you may see: check the name; a private one "
            "needs token or HF_TOKEN"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise Unreachable("it is not in the cache") from error
    except Exception as error:  # of the HTTP library below, which is another one in another version
        if isinstance(error, OSError) and error.errno in REFUSALS:
            raise
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise CheckpointError(
                f"{name}: the hub refuses the token (HTTP {status}): give one that may read it"
            ) from error
        raise Unreachable(named(error)) from error

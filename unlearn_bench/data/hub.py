"""Data set files from the Hugging Face hub: its cache first, then the network."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from unlearn_bench.data.dataset import HubFiles
from unlearn_bench.errors import MissingDataError

ETAG_SECONDS = 10.0
PROBE_SECONDS = 3.0


def find_cached(hub: HubFiles) -> Path | None:
    """Folder of the pinned snapshot if the hub's cache holds every wanted file, else None."""
    folder = _snapshot(hub)
    return folder if folder is not None and not _absent(hub, folder) else None


def fetch_dataset(hub: HubFiles, *, offline: bool = False) -> Path:
    """Folder that holds the wanted files at the pinned commit.

    Honours HF_HUB_OFFLINE, HF_HOME and the hub's token. Raises MissingDataError saying why the
    hub does not answer.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    cached = find_cached(hub)
    if cached is not None:
        return cached
    if going_online_is_off(offline):
        raise MissingDataError(f"{_what_is_cached(hub)}, and going online is off")
    # Asked first because the client itself retries an unknown host for half a minute.
    why = why_unreachable(hub)
    if why:
        raise MissingDataError(f"the hub did not give {hub.repo}: {why}")
    try:
        folder = Path(
            snapshot_download(
                hub.repo,
                repo_type="dataset",
                revision=hub.revision,
                allow_patterns=list(hub.patterns),
                etag_timeout=ETAG_SECONDS,
            )
        )
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MissingDataError(f"the hub did not give {hub.repo}: {reason}") from error
    if absent := _absent(hub, folder):
        raise MissingDataError(f"{hub.repo}@{hub.revision[:12]} lacks {', '.join(absent)}")
    return folder


def _snapshot(hub: HubFiles) -> Path | None:
    """Folder of what the hub's cache holds of the pinned commit, be it whole or not."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                hub.repo, repo_type="dataset", revision=hub.revision, local_files_only=True
            )
        )
    except LocalEntryNotFoundError:
        return None


def _absent(hub: HubFiles, folder: Path) -> list[str]:
    """The wanted files that are not there."""
    present = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return [wanted for wanted in hub.patterns if not any(fnmatch(name, wanted) for name in present)]


def _what_is_cached(hub: HubFiles) -> str:
    folder = _snapshot(hub)
    absent = _absent(hub, folder) if folder is not None else list(hub.patterns)
    if len(absent) == len(hub.patterns):
        return f"{hub.repo} is not in the hub's cache"
    return f"the hub's cache of {hub.repo} lacks {', '.join(absent)}"


def why_unreachable(hub: HubFiles) -> str:
    """One small question to the hub: "" when it knows the pinned commit, else the reason."""
    from huggingface_hub import HfApi

    try:
        HfApi().dataset_info(hub.repo, revision=hub.revision, timeout=PROBE_SECONDS)
    except Exception as error:  # any failure whatever means that this source would not answer
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return ""


def going_online_is_off(offline: bool) -> bool:
    """Whether `--offline` or HF_HUB_OFFLINE forbids asking the hub."""
    from huggingface_hub import constants

    return offline or bool(constants.HF_HUB_OFFLINE)

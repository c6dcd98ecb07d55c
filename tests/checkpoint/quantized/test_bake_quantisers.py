"""The commands on checkpoints in NVFP4 and bitsandbytes: baked in place, verified, compared, dequantised, loaded."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.helpers.quantiser_models import FORMATS, WIDTH, WRITERS, llama
from tests.helpers.quantized_models import TOKENS
from weight_edit.baking import bake as baking
from weight_edit.baking.bake import bake
from weight_edit.checkpoint.quantized.values import values_of
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.difference.diff import diff
from weight_edit.directions.directions import Directions
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.inspection.inspect import inspect
from weight_edit.verification.verify import verify

VECTOR = torch.nn.functional.normalize(torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(3)))
ROWS = DirectionRows(VECTOR)
SCALES = ("absmax", "SCB", "weight_scale")


@pytest.fixture(scope="module", params=FORMATS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("models") / request.param, request.param)


def numbers(folder: Path, name: str) -> np.ndarray:
    return values_of(Checkpoint.open(folder), name).astype(np.float64)


def raw(folder: Path) -> dict[str, bytes]:
    tensors = load_file(folder / "model.safetensors")
    return {name: t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for name, t in tensors.items()}


def test_it_is_edited_in_its_format_and_only_codes_and_counted_scales_differ(base: Path, tmp_path: Path) -> None:
    result = bake(base, ROWS, tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").stat().st_size == (base / "model.safetensors").stat().st_size
    assert (tmp_path / "out/config.json").read_bytes() == (base / "config.json").read_bytes()
    before, after = raw(base), raw(tmp_path / "out")
    modules = [name.removesuffix("weight") for name in WRITERS]
    changed = {name for name in before if before[name] != after[name]} - {"model.embed_tokens.weight"}
    stems = {module for module in modules if any(name.startswith(module) for name in changed)}
    assert stems == set(modules)
    ends = {next(name.removeprefix(module) for module in modules if name.startswith(module)) for name in changed}
    assert ends <= {"weight", "weight_packed", "weight.absmax", "SCB", "weight_scale"}
    assert ends & {"weight", "weight_packed"}
    v = VECTOR.double().numpy()[0]
    for name in WRITERS:
        wanted, got = numbers(base, name), numbers(tmp_path / "out", name)
        was = v @ wanted
        wanted -= np.outer(v, was)
        assert np.linalg.norm(v @ got) < 0.006 * np.linalg.norm(was)
        assert np.linalg.norm(got - wanted) < 0.11 * np.linalg.norm(wanted)
    assert result.extra == ()


def test_nearest_leaves_much_and_verify_says_so(base: Path, tmp_path: Path) -> None:
    bake(base, ROWS, tmp_path / "nearest", rounding="nearest")
    bake(base, ROWS, tmp_path / "balanced")
    assert verify(base, tmp_path / "balanced", weights_only=True).passed
    found = verify(base, tmp_path / "nearest", weights_only=True)
    # The bytes are what the edit makes of them in any case.
    assert found.weights.exact == found.weights.compared
    if base.name != "int8":
        assert any("of V^T W is left" in problem for problem in found.problems)


def test_a_code_that_was_changed_by_hand_is_found(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bake(base, ROWS, out)
    tensors = load_file(out / "model.safetensors")
    name = next(
        name for name in tensors if "down_proj.weight" in name and tensors[name].dtype in (torch.uint8, torch.int8)
    )
    flat = tensors[name].reshape(-1)
    flat[5] ^= 0x11
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    found = verify(base, out, weights_only=True)
    assert not found.passed
    assert any("down_proj" in problem for problem in found.problems)


def test_dequantised_the_writers_are_plain_and_their_tensors_gone(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = bake(base, ROWS, out, dequantize=True)
    tensors = load_file(out / "model.safetensors")
    v = VECTOR.double().numpy()[0]
    for name in WRITERS:
        module = name.removesuffix("weight")
        assert [key for key in tensors if key.startswith(module)] == [name]
        assert tensors[name].dtype == torch.bfloat16
        wanted = numbers(base, name)
        wanted -= np.outer(v, v @ wanted)
        # Rounded once to bfloat16: half a unit of its eight bits.
        assert np.allclose(tensors[name].double().numpy(), wanted, rtol=2**-8, atol=1e-9)
    stored = json.loads((out / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    listed = next(stored[key] for key in ("llm_int8_skip_modules", "ignore") if stored.get(key))
    assert {name.removesuffix(".weight") for name in WRITERS} | {"lm_head"} <= set(listed)
    assert len(result.removed) >= len(WRITERS)
    assert verify(base, out, weights_only=True).passed


def test_modelopts_own_file_is_read_and_changed_with_the_format(tmp_path: Path) -> None:
    base = llama(tmp_path / "base", "nvfp4-modelopt", own_file=True)
    assert inspect(base).quantised == "modelopt, 14 tensors"
    bake(base, ROWS, tmp_path / "kept")
    assert (tmp_path / "kept/hf_quant_config.json").read_bytes() == (base / "hf_quant_config.json").read_bytes()
    assert verify(base, tmp_path / "kept", weights_only=True).passed
    out = tmp_path / "plain"
    bake(base, ROWS, out, dequantize=True)
    own = json.loads((out / "hf_quant_config.json").read_text(encoding="utf-8"))["quantization"]
    assert set(own["exclude_modules"]) == {"lm_head", *(name.removesuffix(".weight") for name in WRITERS)}
    assert (out / "config.json").read_bytes() == (base / "config.json").read_bytes()
    assert verify(base, out, weights_only=True).passed
    (out / "hf_quant_config.json").write_bytes((base / "hf_quant_config.json").read_bytes())
    problems = verify(base, out, weights_only=True).problems
    assert any("hf_quant_config.json: the file is not what the edit makes of it" in problem for problem in problems)


def test_inspect_and_diff_see_matrices(base: Path, tmp_path: Path) -> None:
    found = inspect(base)
    assert found.quantised is not None
    assert found.quantised.endswith("14 tensors")
    assert found.extra == []
    assert {name for places in found.places.values() for name, _ in places} == {
        *WRITERS,
        "model.embed_tokens.weight",
    }
    bake(base, ROWS, tmp_path / "out")
    compared = diff(base, tmp_path / "out")
    changed = {entry.name.replace("weight_packed", "weight") for entry in compared.tensors}
    assert changed == {*WRITERS, "model.embed_tokens.weight"}
    assert compared.only_a == compared.only_b == ()
    # The direction of the edit, through the noise of rounding.
    assert abs(float(compared.rows[0] @ VECTOR.numpy()[0])) > 0.95


def test_a_bake_that_was_stopped_goes_on(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(baking, "write_card_and_manifest", pressed)
        with pytest.raises(KeyboardInterrupt):
            bake(base, ROWS, tmp_path / "out")
    result = bake(base, ROWS, tmp_path / "out", resume=True)
    assert result.bytes_kept == result.bytes_total
    bake(base, ROWS, tmp_path / "once")
    assert raw(tmp_path / "out") == raw(tmp_path / "once")


@pytest.mark.parametrize("ending", ["weight_scale", "weight.absmax", "SCB", "weight_global_scale"])
def test_a_scale_that_is_no_number_is_one_line(
    base: Path, ending: str, tmp_path: Path, call: Callable[..., Any]
) -> None:
    tensors = load_file(base / "model.safetensors")
    name = f"model.layers.1.mlp.down_proj.{ending}"
    if name not in tensors or tensors[name].dtype == torch.uint8:
        pytest.skip("not of this format")
    if tensors[name].dtype == torch.float8_e4m3fn:
        tensors[name].view(torch.uint8)[0, 0] = 0x7F
    else:
        tensors[name][0] = float("nan")
    broken = tmp_path / "broken"
    broken.mkdir()
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    (broken / "config.json").write_bytes((base / "config.json").read_bytes())
    Directions(VECTOR).save(tmp_path / "d.safetensors")
    result = call("bake", str(broken), "--directions", str(tmp_path / "d.safetensors"), "--out", str(tmp_path / "out"))
    assert result.code == 2
    (line,) = result.err.strip().splitlines()
    assert name in line
    assert not (tmp_path / "out").exists()


def logits(folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map="cpu").eval()
    with torch.no_grad():
        return model(TOKENS).logits[0].double()


def plain(folder: Path, out: Path) -> Path:
    """The same model with all numbers as they are decoded here, in float32."""
    checkpoint = Checkpoint.open(folder)
    out.mkdir()
    config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    (out / "config.json").write_text(json.dumps(config | {"dtype": "float32"}), encoding="utf-8")
    names = {
        name.replace("weight_packed", "weight")
        for name in checkpoint.tensors
        if "weight_" not in name or "packed" in name
    }
    kept = [name for name in names if name.endswith("weight")]
    tensors = {name: torch.from_numpy(values_of(checkpoint, name).copy()) for name in kept}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


@pytest.mark.parametrize(
    ("form", "package"),
    [
        *((form, "bitsandbytes") for form in ("nf4", "nf4-nested", "fp4")),
        ("nvfp4-compressed", "compressed_tensors"),
    ],
)
def test_the_formats_package_computes_what_is_decoded_here(form: str, package: str, tmp_path: Path) -> None:
    if find_spec(package) is None:
        pytest.skip(f"needs {package}")
    base = llama(tmp_path / "base", form)
    bake(base, ROWS, tmp_path / "out")
    theirs, ours = logits(tmp_path / "out"), logits(plain(tmp_path / "out", tmp_path / "plain"))
    unedited = logits(base)
    # Both compute in bfloat16.
    assert (theirs - ours).norm() < 0.02 * ours.norm()
    assert (theirs - unedited).norm() > 0.1 * unedited.norm()

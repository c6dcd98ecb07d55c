"""llama.cpp's adapters and control vectors: what is in the files, by its formulas; a benchmark has it run them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gguf")

from gguf import GGUFReader

from tests.helpers.edit_kinds import directions
from tests.helpers.families import save_family
from tests.helpers.gguf_models import small_model, write_model
from weight_edit.adapters.adapter import adapter
from weight_edit.baking.bake import bake
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.plan.step import EditStep


def tensors(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {tensor.name: np.array(tensor.data) for tensor in GGUFReader(path).tensors}


def value(path: Path, key: str) -> Any:
    return GGUFReader(path).fields[key].contents()


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe"])
def test_factors_make_the_baked_file(kind: str, tmp_path: Path) -> None:
    """`W + alpha / rank B A` of each tensor, of each expert; a row of A is looked up for the embedding."""
    file = write_model(tmp_path / "model.gguf", small_model(kind), kind)
    result = adapter(file, directions(2), tmp_path / "lora")
    assert (result.file_format, result.files) == ("gguf", ("adapter.gguf",))
    bake(file, directions(2), tmp_path / "out")
    found, base, baked = (tensors(path) for path in (tmp_path / "lora/adapter.gguf", file, tmp_path / "out/model.gguf"))
    alpha = value(tmp_path / "lora/adapter.gguf", "adapter.lora.alpha")
    for tensor in result.modules:
        a, b = found[f"{tensor}.lora_a"], found[f"{tensor}.lora_b"]
        change = a @ b.T if tensor == "token_embd.weight" else b @ a
        assert np.abs(base[tensor] + alpha / b.shape[-1] * change - baked[tensor]).max() < 1e-5
        assert np.abs(base[tensor] - baked[tensor]).max() > 1e-3
    changed = {name for name in base if not np.array_equal(base[name], baked[name])}
    assert changed == set(result.modules)


def test_the_metadata_are_those_that_llama_cpp_asks_for(tmp_path: Path) -> None:
    file = write_model(tmp_path / "model.gguf", small_model("qwen3"), "qwen3")
    adapter(file, directions(1), tmp_path / "lora", strengths=(0.5,))
    said = {key: value(tmp_path / "lora/adapter.gguf", key) for key in ("general.type", "adapter.type")}
    assert said == {"general.type": "adapter", "adapter.type": "lora"}
    assert value(tmp_path / "lora/adapter.gguf", "general.architecture") == "qwen3"


def test_additions_are_a_control_vector_one_block_earlier(tmp_path: Path) -> None:
    base = save_family("gemma2", tmp_path / "base")
    given = directions(1)
    result = adapter(base, given, tmp_path / "vector", kind="add", at=(2,), strength=-1.5, file_format="gguf")
    assert (result.files, result.rank, result.modules) == (("control-vector.gguf",), 0, ("direction.1",))
    path = result.path / "control-vector.gguf"
    assert value(path, "general.architecture") == "controlvector"
    assert value(path, "controlvector.model_hint") == "gemma2"
    (vector,) = tensors(path).values()
    assert np.allclose(vector, -1.5 * given.tensors["vector"], atol=1e-6)
    for layer in (0, 1):
        with pytest.raises(UnsupportedError, match=rf"blocks 2 to 2, and not of {layer}"):
            adapter(base, given, tmp_path / "none", kind="add", at=(layer,), file_format="gguf")
    with pytest.raises(UsageError, match="layer 9 does not exist"):
        adapter(base, given, tmp_path / "none", kind="add", at=(9,), file_format="gguf")


def test_a_map_and_an_addition_are_two_files(tmp_path: Path) -> None:
    """What is added first goes through the map that follows."""
    file = write_model(tmp_path / "model.gguf", small_model("qwen3"), "qwen3")
    given = directions(1)
    added, mapped = EditStep(directions=given, kind="add", at=(2,)), EditStep(directions=given)
    for steps, share in (([mapped, added], 1.0), ([added, mapped], 0.0)):
        result = adapter(file, steps, tmp_path / "both", overwrite=True)
        assert result.files == ("adapter.gguf", "control-vector.gguf")
        vector = tensors(result.path / "control-vector.gguf")["direction.1"]
        along = float(given.rows[0] @ given.tensors["vector"])
        assert float(given.rows[0] @ vector) == pytest.approx(share * along, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("gemma2", {}, r"llama\.cpp stops where an adapter has 'token_embd\.weight'"),
        ("gpt2", {"embeddings": "skip"}, r"no adapter to position embeddings \('position_embd\.weight'\)"),
        ("starcoder2", {"embeddings": "skip"}, r"bias or a norm, for which llama\.cpp's adapters have no place"),
        ("qwen3", {"kind": "affine", "options": {"enter": "embedding"}}, "sets the stream to a constant"),
        ("qwen3", {"kind": "reflect", "at": (1,)}, "in another order"),
        ("qwen3", {"file_format": "peft"}, "is a GGUF file"),
        ("qwen3", {"file_format": "onnx"}, "format of adapters"),
    ],
)
def test_what_llama_cpp_cannot_carry_is_refused(kind: str, options: dict[str, Any], said: str, tmp_path: Path) -> None:
    file = write_model(tmp_path / "model.gguf", small_model(kind), kind)
    with pytest.raises((UnsupportedError, UsageError), match=said):
        adapter(file, directions(1), tmp_path / "lora", **options)
    assert not (tmp_path / "lora").exists()


def test_a_folder_has_no_numbers_of_a_file(tmp_path: Path) -> None:
    base = save_family("llama", tmp_path / "base")
    with pytest.raises(UnsupportedError, match=r"give that file as MODEL.*convert_lora_to_gguf"):
        adapter(base, directions(1), tmp_path / "lora", file_format="gguf")

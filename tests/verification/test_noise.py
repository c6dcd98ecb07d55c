"""Models in coarser dtypes than float32 are judged by the base's own noise, in the memory of one of them."""

import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.families import save_family
from tests.helpers.small_tokenizer import word_tokenizer
from tests.helpers.verification_samples import PROMPTS, resign, rows
from weight_edit.baking.bake import bake
from weight_edit.edits.low_rank import LowRankMap
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.plan.step import EditStep
from weight_edit.runtime import compute_dtype as widening
from weight_edit.runtime.compute_dtype import MixedError, widened
from weight_edit.runtime.loading import Model, load
from weight_edit.runtime.spool import Spool
from weight_edit.verification import tolerances
from weight_edit.verification.faithfulness import Agreement, Comparison
from weight_edit.verification.rounding import RandomRounding
from weight_edit.verification.tolerances import STRICT, Noise
from weight_edit.verification.verify import Verification, verify

FAMILIES = ["llama", "llama-tied", "gemma2", "gpt2"]
IDS = torch.tensor([[1, 5, 7, 2, 9, 4]])


def base_of(folder: Path, family: str) -> Path:
    save_family(family, folder / "base", dtype=torch.bfloat16)
    word_tokenizer().save_pretrained(folder / "base")
    return folder / "base"


@pytest.fixture(scope="module", params=FAMILIES)
def baked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bfloat16 `base` and its edit `out`."""
    folder = tmp_path_factory.mktemp("noise")
    bake(base_of(folder, request.param), rows(), folder / "out")
    return folder


@pytest.fixture(scope="module")
def honest(baked: Path) -> Verification:
    return verify(baked / "base", baked / "out", prompts=PROMPTS)


def test_a_correct_edit_passes_and_the_noise_is_stated(honest: Verification) -> None:
    assert honest.problems == ()
    noise = honest.to_dict()["noise"]
    assert noise["dtype"] == "bfloat16"
    assert noise["float32_against_storage"]["kl"] > 0
    assert noise["rounded_weights_hooked"]["kl"] > 0
    # Padding is a share of what the dtype does; the figure is there, and buys nothing.
    assert noise["padded_against_alone"]["largest"] >= 0
    assert list(honest.precisions) == ["float32", "bfloat16"]
    for precision in honest.precisions.values():
        assert precision.allowed.leak < 0.05 < precision.leak_before.worst


def test_a_writer_that_was_left_out_fails_by_the_models_too(baked: Path, tmp_path: Path) -> None:
    shutil.copytree(baked / "out", tmp_path / "out")
    before = load_file(baked / "base/model.safetensors")
    name = next(name for name in before if "1.mlp.down_proj.weight" in name or "1.mlp.c_proj.weight" in name)
    held = load_file(tmp_path / "out/model.safetensors")
    save_file({**held, name: before[name]}, tmp_path / "out/model.safetensors", metadata={"format": "pt"})
    resign(tmp_path / "out")
    problems = verify(baked / "base", tmp_path / "out", prompts=PROMPTS).problems
    assert any(name in problem for problem in problems)
    for dtype in ("float32", "bfloat16"):
        assert any(problem.startswith(f"stream in {dtype}") for problem in problems)
    assert any(problem.startswith("logits in float32") for problem in problems)


def test_float32_is_as_strict_as_it_was(tmp_path: Path) -> None:
    save_family("llama", tmp_path / "base")
    word_tokenizer().save_pretrained(tmp_path / "base")
    bake(tmp_path / "base", rows(), tmp_path / "out")
    checked = verify(tmp_path / "base", tmp_path / "out", prompts=PROMPTS)
    assert (STRICT.leak, STRICT.logits, STRICT.kl) == (1e-5, 1e-4, 1e-6)
    precision = checked.precisions["float32"]
    assert checked.noise is None
    assert list(checked.precisions) == ["float32"]
    assert (precision.allowed.leak, precision.allowed.kl) == (STRICT.leak, STRICT.kl)
    assert precision.allowed.logits == STRICT.logits * max(1.0, precision.faithful.scale)


@pytest.mark.parametrize("noise", [float("nan"), float("inf")])
def test_noise_that_is_no_number_gives_no_leave(noise: float) -> None:
    agreement = Agreement(largest=noise, mean=noise, scale=1.0, kl=noise, argmax=1.0, tokens=3)
    allowed = Noise(
        dtype="float16", computing=agreement, hooked=agreement, weights=agreement, padding=agreement, leak=noise
    ).tolerance("float16", 1.0)
    assert (allowed.leak, allowed.logits, allowed.kl) == (STRICT.leak, STRICT.logits, STRICT.kl)


def test_padding_buys_nothing() -> None:
    small, large = (
        Agreement(largest=size, mean=size, scale=1.0, kl=size, argmax=1.0, tokens=3) for size in (1e-2, 1e3)
    )
    noise = Noise(dtype="bfloat16", computing=small, hooked=small, weights=small, padding=large, leak=1e-2)
    assert noise.tolerance("bfloat16", 1.0).kl == pytest.approx(tolerances.IN_STORAGE * 2e-2)
    assert noise.tolerance("float32", 1.0).kl == pytest.approx(tolerances.IN_FLOAT32 * 1e-2)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings and unembeddings are converted some rows at a time, as those of large models are."""
    monkeypatch.setattr(widening, "LARGE", 256)


def logits(model: Model) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.model(input_ids=IDS, use_cache=False).logits
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_held_in_bfloat16_computes_as_if_it_were_loaded_in_float32(
    tmp_path: Path, small_pieces: None, family: str
) -> None:
    folder = base_of(tmp_path, family)
    wanted = logits(load(folder, dtype="float32"))
    model = load(folder, dtype="bfloat16")
    stored = {name: (tensor.dtype, tensor.clone()) for name, tensor in model.model.named_parameters()}
    coarse = logits(model)
    with widened(model, torch.float32):
        found = logits(model)
    assert found.dtype == torch.float32
    assert float((found - wanted).abs().max()) < 1e-5 < float((coarse.float() - wanted).abs().max())
    # All is as it was.
    assert torch.equal(logits(model), coarse)
    for name, tensor in model.model.named_parameters():
        assert tensor.dtype == stored[name][0]
        assert torch.equal(tensor, stored[name][1])


def test_no_more_than_a_block_is_in_float32(tmp_path: Path, small_pieces: None) -> None:
    model = load(base_of(tmp_path, "llama"), dtype="bfloat16")
    most = max(sum(p.numel() for p in block.parameters()) for block in model.model.model.layers)
    seen: list[int] = []

    def count(*_: Any) -> None:
        seen.append(sum(p.numel() for p in model.model.parameters() if p.dtype == torch.float32))

    for module in model.model.modules():
        module.register_forward_pre_hook(count)
    with widened(model, torch.float32):
        logits(model)
    assert 0 < max(seen) <= most


def test_changes_of_parameters_are_made_of_what_was_converted(tmp_path: Path, small_pieces: None) -> None:
    """As a hook on the parameter makes them in a model that is float32 as a whole."""
    folder = base_of(tmp_path, "llama-tied")
    row = torch.linalg.qr(torch.randn(64, 1, generator=torch.Generator().manual_seed(1)))[0]
    change = TensorEdit(LowRankMap(row.numpy(), row.numpy()), 1, keep_norms=True)
    whole = load(folder, dtype="float32")
    whole.model.get_input_embeddings().weight.data = change(whole.model.get_input_embeddings().weight.data)
    model = load(folder, dtype="bfloat16")
    with widened(model, torch.float32, {"model.embed_tokens.weight": change}):
        assert float((logits(model) - logits(whole)).abs().max()) < 1e-5


def test_a_model_that_looks_at_its_own_dtype_is_loaded_in_float32(
    baked: Path, honest: Verification, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: Model, dtype: torch.dtype, changes: Any = None) -> AbstractContextManager[None]:
        if model.dtype != dtype:
            raise MixedError("it looks at its own dtype")
        return widened(model, dtype, changes)

    monkeypatch.setattr("weight_edit.verification.side.widened", refuse)
    checked = verify(baked / "base", baked / "out", prompts=PROMPTS)
    for dtype in ("float32", "bfloat16"):
        mine, other = checked.precisions[dtype], honest.precisions[dtype]
        assert mine.faithful.kl == pytest.approx(other.faithful.kl, rel=1e-2)
        assert mine.leak.worst == pytest.approx(other.leak.worst, rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_random_rounding_is_as_large_as_rounding(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 400, generator=generator)
    row = torch.linalg.qr(torch.randn(64, 1, generator=generator))[0].numpy()
    edit = TensorEdit(LowRankMap(row, row), 0)
    exact = edit(weight)
    error = (exact.to(dtype).float() - exact).norm()
    moved = RandomRounding(str(dtype).removeprefix("torch.")).move(edit, weight) - weight
    assert float(moved.norm() / error) == pytest.approx(1, abs=0.05)
    by_tenth = RandomRounding("bfloat16", relative=0.1).move(edit, weight) - weight
    assert float(by_tenth.norm() / exact.norm()) == pytest.approx(0.1, abs=0.005)


def test_logits_come_back_from_the_file_as_they_were_and_some_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("weight_edit.verification.faithfulness.ENTRIES", 100)
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(13, 40, generator=generator).bfloat16() for _ in range(2))
    in_pieces, whole = Comparison(), Comparison()
    with Spool() as spool:
        spool.keep("p", 0, p)
        spool.keep("p", 1, q.float())
        assert (spool.has("p"), spool.has("q")) == (True, False)
        assert torch.equal(spool.get("p", 0), p)
        in_pieces.add(spool.get("p", 0), spool.get("p", 1))
    monkeypatch.setattr("weight_edit.verification.faithfulness.ENTRIES", 1 << 20)
    whole.add(p, q)
    assert in_pieces.result.to_dict() == pytest.approx(whole.result.to_dict(), rel=1e-12)
    assert in_pieces.result.tokens == 13


def test_float32_figures_are_those_of_a_model_loaded_in_float32(
    baked: Path, honest: Verification, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same checkpoint looked at as if it were stored in float32, where nothing is converted."""
    monkeypatch.setattr("weight_edit.verification.verify._storage", lambda baking: "float32")
    whole = verify(baked / "base", baked / "out", prompts=PROMPTS).precisions["float32"]
    mine = honest.precisions["float32"]
    assert mine.leak.worst == pytest.approx(whole.leak.worst, rel=1e-3)
    assert mine.leak_before.worst == pytest.approx(whole.leak_before.worst, rel=1e-3)
    for name in ("largest", "kl", "scale"):
        assert getattr(mine.faithful, name) == pytest.approx(getattr(whole.faithful, name), rel=1e-2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_biases_that_the_edit_creates_are_rounded_too(tmp_path: Path, dtype: str) -> None:
    save_family("llama", tmp_path / "base", dtype=getattr(torch, dtype))
    word_tokenizer().save_pretrained(tmp_path / "base")
    step = EditStep(directions=rows().rows, kind="add", strength=2.5, at=(1,), options={"length": "unit"})
    bake(tmp_path / "base", [step], tmp_path / "out")
    checked = verify(tmp_path / "base", tmp_path / "out", prompts=PROMPTS)
    assert checked.problems == ()
    assert checked.to_dict()["noise"]["rounded_weights_hooked"]["kl"] > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_stream_that_is_finer_than_the_weights_is_judged(tmp_path: Path, dtype: str) -> None:
    """Mamba keeps its stream in float32 whatever its weights are; norm-preserving ablation is hooked on parameters."""
    save_family("mamba", tmp_path / "base", dtype=getattr(torch, dtype))
    word_tokenizer().save_pretrained(tmp_path / "base")
    bake(tmp_path / "base", [EditStep(directions=rows().rows, kind="norm-preserving")], tmp_path / "out")
    assert verify(tmp_path / "base", tmp_path / "out", prompts=PROMPTS).problems == ()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_leaves_zeros_as_they_are(dtype: str) -> None:
    moved = RandomRounding(dtype).of(torch.tensor([0.0, 1.0, -0.0, 2.0**-130]))
    assert moved[0] == moved[2] == 0
    assert 0 < abs(moved[1]) <= 2.0 ** (-8 if dtype == "bfloat16" else -11)

"""Models on disk: the same to the bit as in memory, and each weight read once."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.helpers.models_on_disk import Pair, logits, pair, save, steps, width
from tests.helpers.quantized_models import gpt_oss, qwen3_fine_grained
from tests.helpers.small_tokenizer import word_tokenizer
from weight_edit.directions.find import find_directions
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.plan.hooks import ablation_hooks
from weight_edit.runtime.activations import residuals
from weight_edit.runtime.compute_dtype import widened
from weight_edit.runtime.forward import answer_logprobs, next_token, next_token_logprobs
from weight_edit.runtime.generation import generate
from weight_edit.runtime.hooks import Hook, addition_hook, hooked
from weight_edit.runtime.loading import load
from weight_edit.runtime.offload import conversion, gates, offload
from weight_edit.runtime.offload.parameters import DiskParameter
from weight_edit.runtime.options import LoadOptions
from weight_edit.runtime.points import Point, all_points
from weight_edit.runtime.prefix import unsuited
from weight_edit.runtime.variants import PLAIN, Variant

FAMILIES = (
    "llama",
    "gpt2",  # learned positions, tied, weights the other way round
    "gemma3",  # scaled embeddings, tied, windows shorter than the prompts
    "opt",  # positions counted from two, a norm that is set up before the blocks
    "bloom",  # a norm behind the embedding
    "mixtral",  # experts stored apart, stacked when loaded
    "gpt_oss",  # experts stored stacked
    "deepseek_v3",
    "qwen3_next",  # linear attention and experts
    "falcon_h1",  # state space and attention in one block
    "lfm2",  # convolutions
    "deepseek_v4",  # hyper-connections
    "zamba2",  # a block that is shared
    "gemma4",  # embeddings for each layer, towers that no text goes through
)
SHARED = ("zamba2",)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    made: dict[str, Pair] = {}

    def of(family: str) -> Pair:
        if family not in made:
            made[family] = pair(save(family, tmp_path_factory.mktemp(family)))
        return made[family]

    return of


@pytest.fixture
def llama(pairs: Callable[[str], Pair]) -> Pair:
    return pairs("llama")


def equal(found: list[Tensor], wanted: list[Tensor]) -> bool:
    return len(found) == len(wanted) and all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_in_turns_and_one_alone_are_the_same_to_the_bit(family: str, pairs: Callable[[str], Pair]) -> None:
    both = pairs(family)
    batches = both.batches()
    with torch.no_grad():
        wanted = [logits(both.memory, ids) for ids in batches]
        assert equal([logits(both.disk, ids) for ids in batches], wanted)
    assert equal(both.offload.run(steps(both.disk, batches)), wanted)
    # Nothing is left in place.
    assert not any(gate.inside for gate in both.offload._gates.values())
    blocks = [both.disk.model.get_submodule(block.module) for block in both.disk.anatomy.blocks]
    assert all(isinstance(p, DiskParameter) for block in blocks for p in block.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_streams_and_logits_under_an_edit_are_the_same_to_the_bit(family: str, pairs: Callable[[str], Pair]) -> None:
    both = pairs(family)
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(2, width(both.folder), generator=generator)
    found = []
    if unsuited(both.memory) is not None:
        # Batches of one length each, as from disk: whether padding shows would be tried first.
        both.memory.hides_padding = False
    for model in (both.memory, both.disk):
        # OPT's norms see the stream of all rows in one.
        points = [p for p in all_points(model) if family != "opt" or p.kind != "resid_mid"]
        plain = residuals(model, both.sequences, points, [-1, -2], batch_size=4)
        with hooked(model.model, [*ablation_hooks(model, rows), addition_hook(model, 1, rows[0])]):
            edited = residuals(model, both.sequences, points[-2:], [-1], batch_size=4)
            found.append([plain, edited, next_token_logprobs(model, both.sequences, batch_size=4)])
    assert equal(found[1], found[0])
    assert found[0][2].isfinite().all()
    assert not torch.equal(found[0][0][:, :1, -2:], found[0][1])


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_read_as_they_would_be_loaded(family: str, pairs: Callable[[str], Pair]) -> None:
    both = pairs(family)
    parameters = dict(both.memory.model.named_parameters(remove_duplicate=False))
    assert list(parameters) == [name for name, _ in both.disk.model.named_parameters(remove_duplicate=False)]
    for name, parameter in parameters.items():
        read = both.disk.parameter(name)
        assert read.dtype == parameter.dtype
        assert torch.equal(read, parameter), name
    assert (both.disk.device, both.disk.dtype) == (both.memory.device, both.memory.dtype)
    assert (both.disk.vocabulary, both.disk.embeddings) == (both.memory.vocabulary, both.memory.embeddings)
    assert both.disk.small == both.memory.small
    assert both.disk.anatomy == both.memory.anatomy


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in SHARED])
def test_each_weight_is_read_once_for_a_request(family: str, pairs: Callable[[str], Pair]) -> None:
    both = pairs(family)
    batches = both.batches()
    both.offload.run(steps(both.disk, batches))
    model = both.disk.model
    embedding = model.get_input_embeddings().weight
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    whole = {
        id(p): p.nbytes
        for block in both.disk.anatomy.blocks
        for p in model.get_submodule(block.module).parameters()
        if isinstance(p, DiskParameter)
    }
    others = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and id(m.weight) not in whole]
    head = model.get_output_embeddings()
    expected = sum(whole.values()) + head.weight.nbytes
    # Only the rows in use of an embedding, each once; ids 0 to 39 at most.
    used = len(torch.unique(torch.cat([ids.flatten() for ids in batches])))
    least = expected + used * embedding.nbytes // len(embedding)
    rest = sum(p.nbytes for m in others if m is not head for p in m.parameters(recurse=False))
    most = least + rest + 64 * sum(p.nbytes // len(p) for p in model.parameters() if id(p) in tables)
    assert least <= both.offload.bytes_of_request <= most


def test_the_bytes_of_a_request_are_exact(llama: Pair) -> None:
    batches = llama.batches()
    llama.offload.run(steps(llama.disk, batches))
    embedding = llama.memory.model.get_input_embeddings().weight
    used = len(torch.unique(torch.cat([ids.flatten() for ids in batches])))
    assert used < len(embedding)
    expected = llama.stored(without="embed_tokens") + used * embedding.shape[1] * 4
    # The last norm lies in memory.
    assert llama.offload.bytes_of_request == expected - llama.memory.parameter("model.norm.weight").nbytes
    before = llama.offload.bytes_read
    llama.offload.run(steps(llama.disk, batches * 3))
    assert llama.offload.bytes_read - before == llama.offload.bytes_of_request == expected - embedding.shape[1] * 4


def test_many_batches_of_the_engine_are_one_request(llama: Pair) -> None:
    sequences = llama.sequences
    next_token_logprobs(llama.disk, sequences, batch_size=4)
    once = llama.offload.bytes_of_request
    before = llama.offload.bytes_read
    next_token_logprobs(llama.disk, sequences, batch_size=1)
    # But for the embedding of the padding.
    assert once - 64 * 4 <= llama.offload.bytes_read - before <= once < llama.stored()


@pytest.mark.parametrize("family", ["llama", "gemma3", "mixtral", "gpt2"])
def test_a_common_prefix_and_several_edits_are_one_reading(family: str, pairs: Callable[[str], Pair]) -> None:
    both = pairs(family)
    prefix = list(range(5, 17))
    sequences = [[*prefix, *sequence] for sequence in both.sequences]
    rows = torch.randn(3, width(both.folder), generator=torch.Generator().manual_seed(3))
    found = []
    for model in (both.memory, both.disk):
        variants = [PLAIN, *(Variant(tuple(ablation_hooks(model, row[None]))) for row in rows)]
        values = next_token(model, sequences, lambda _, x: list(x.float().log_softmax(-1)), variants=variants)
        found.append([torch.stack(some) for some in values])
    many = both.offload.bytes_of_request
    for a, b in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)
    assert len({float(some.sum()) for some in found[0]}) == 4
    next_token(both.disk, sequences, lambda _, x: list(x[:, 0]))
    assert both.offload.bytes_of_request == many <= 1.1 * both.stored()


@pytest.mark.parametrize("sample", [qwen3_fine_grained, gpt_oss])
def test_quantised_weights_are_decoded_as_in_memory(sample: Callable[[Path], object], tmp_path: Path) -> None:
    sample(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    both = pair(tmp_path / "model")
    batches = both.batches()
    with torch.no_grad():
        wanted = [logits(both.memory, ids) for ids in batches]
    assert equal(both.offload.run(steps(both.disk, batches)), wanted)
    # Bytes as they are stored: of FP8 and MXFP4 half and a quarter of what is computed with.
    assert both.offload.bytes_of_request <= both.stored()
    for name, parameter in both.memory.model.named_parameters():
        assert torch.equal(both.disk.parameter(name), parameter), name


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_pieces_and_slices_make_the_same(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "PIECE", 1)
    monkeypatch.setattr(offload, "RESIDENT", 0)
    monkeypatch.setattr(gates, "SLICE", 2048)
    monkeypatch.setattr(gates, "IN_MEMORY", 0)
    both = pair(save(family, tmp_path))
    batches = both.batches()
    with torch.no_grad():
        wanted = [logits(both.memory, ids) for ids in batches]
    found = both.offload.run(steps(both.disk, batches))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    # The head in more than one slice, the last norm at a gate of its own.
    assert {kind for (kind, _), _ in (k for k in both.offload._gates if isinstance(k, tuple))} == {
        "rows",
        "linear",
        "whole",
    }
    for name, parameter in both.memory.model.named_parameters():
        assert torch.equal(both.disk.parameter(name), parameter), name


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "gpt_oss", "llama4_text"])
def test_a_large_mixture_is_read_one_expert_at_a_time(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offload, "STACK", 0)
    both = pair(save(family, tmp_path))
    if hasattr(both.memory.model, "set_experts_implementation"):
        both.memory.model.set_experts_implementation("eager")
    batches = both.batches()
    with torch.no_grad():
        wanted = [logits(both.memory, ids) for ids in batches]
    assert equal(both.offload.run(steps(both.disk, batches)), wanted)
    read = both.offload.bytes_of_request
    # All batches that want an expert get it from one reading.
    assert read <= both.stored()
    one_by_one = any(isinstance(key, tuple) and key[0][0] == "pieces" for key in both.offload._gates)
    assert one_by_one == (family != "llama4_text")
    if one_by_one:
        both.offload.run(steps(both.disk, [ids[:1, :1] for ids in batches[:1]]))
        # One token goes to a few experts.
        assert both.offload.bytes_of_request < 0.9 * read


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_blocks_fetched_ahead_are_the_same_blocks(family: str, tmp_path: Path) -> None:
    both = pair(save(family, tmp_path))
    batches = both.batches()
    both.offload.run(steps(both.disk, batches))
    once = both.offload.bytes_of_request
    fetched, stored = [], both.offload._stored
    with ThreadPoolExecutor(1) as pool:
        both.offload._pool = pool
        both.offload._stored = lambda wanted: (fetched.append(threading.current_thread().name), stored(wanted))[1]
        with torch.no_grad():
            wanted = [logits(both.memory, ids) for ids in batches]
        assert equal(both.offload.run(steps(both.disk, batches)), wanted)
        assert both.offload.bytes_of_request == once
        # All blocks but the first one.
        others = [name for name in fetched if name != threading.current_thread().name]
        assert len(others) == both.disk.anatomy.n_layers - 1
        with hooked(both.disk.model, [addition_hook(both.disk, 1, torch.ones(width(both.folder)))]):
            residuals(both.disk, both.sequences, [Point("resid_post", 0)], [-1])
        assert both.offload._ahead is None


def test_a_change_of_a_parameter_is_made_where_it_is_read(pairs: Callable[[str], Pair]) -> None:
    both = pairs("gemma3")
    tied, inner = "model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"
    hooks = [Hook(tied, "parameter", lambda x: x * 1.5), Hook(inner, "parameter", torch.neg)]
    found = []
    for model in (both.memory, both.disk):
        plain = next_token_logprobs(model, both.sequences)
        with hooked(model.model, hooks):
            found.append(next_token_logprobs(model, both.sequences))
        assert torch.equal(next_token_logprobs(model, both.sequences), plain)
        assert not torch.equal(found[-1], plain)
    assert torch.equal(*found)


def test_hooks_of_callers_see_what_they_see_in_memory(pairs: Callable[[str], Pair]) -> None:
    both = pairs("gemma3")
    ids = both.batches()[0]
    seen: list[list[Tensor]] = []
    for model in (both.memory, both.disk):
        kept: list[Tensor] = []
        embedding, head = model.model.get_input_embeddings(), model.model.get_output_embeddings()

        def keep(x: Tensor, kept: list[Tensor] = kept) -> Tensor:
            kept.append(x.clone())
            return x * 2 if x.is_floating_point() else x

        handles = [
            embedding.register_forward_pre_hook(lambda _, args, keep=keep: (keep(args[0]),)),
            embedding.register_forward_hook(lambda _, __, out, keep=keep: keep(out)),
            head.register_forward_pre_hook(lambda _, args, keep=keep: (keep(args[0]),)),
            head.register_forward_hook(lambda _, __, out, keep=keep: keep(out)),
        ]
        with torch.no_grad():
            kept.append(logits(model, ids))
        for handle in handles:
            handle.remove()
        seen.append(kept)
    assert len(seen[0]) == 5
    assert equal(*seen)


def test_a_model_on_disk_computes_in_another_dtype(tmp_path: Path) -> None:
    both = pair(save("gemma3", tmp_path, torch.bfloat16))
    ids = both.batches()[0]
    changes = {"model.layers.0.mlp.down_proj.weight": torch.neg, "model.embed_tokens.weight": lambda x: x * 2}
    found = []
    for model in (both.memory, both.disk):
        with widened(model, torch.float32, changes), torch.no_grad():
            found.append(logits(model, ids))
        with torch.no_grad():
            assert logits(model, ids).dtype == torch.bfloat16
    assert found[1].dtype == torch.float32
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)


def test_answers_and_their_probabilities_are_the_same(llama: Pair) -> None:
    prompts, answers = llama.sequences, [sequence[:3] for sequence in llama.sequences]
    assert equal(answer_logprobs(llama.disk, prompts, answers), answer_logprobs(llama.memory, prompts, answers))
    before = llama.offload.bytes_read
    found = [answer.tokens for answer in generate(llama.disk, prompts, max_new_tokens=4)]
    assert found == [answer.tokens for answer in generate(llama.memory, prompts, max_new_tokens=4)]
    # All batches take a token together: one reading of the weights for each, and one to measure what memory allows.
    assert llama.offload.bytes_read - before <= (4 + 1) * llama.stored()


@pytest.mark.parametrize("family", ["qwen3_next", "deepseek_v4"])
def test_batches_of_a_foreign_cache_take_their_tokens_together(family: str, pairs: Callable[[str], Pair]) -> None:
    both = pairs(family)
    before = both.offload.bytes_read
    found = generate(both.disk, both.sequences, max_new_tokens=4)
    assert found == generate(both.memory, both.sequences, max_new_tokens=4)
    # Batches of four lengths.
    assert both.offload.bytes_read - before <= 4 * both.stored()


def test_tied_weights_that_are_both_stored_are_compared(tmp_path: Path) -> None:
    folder = save("llama-tied", tmp_path)
    shard = next(path for path in folder.glob("*.safetensors") if "model.embed_tokens.weight" in load_file(path))
    tensors = load_file(shard)
    for other, tied in ((tensors["model.embed_tokens.weight"].clone(), True), (torch.rand(0), False)):
        if not tied:
            other = tensors["model.embed_tokens.weight"].flip(0).contiguous()
        save_file({**tensors, "lm_head.weight": other}, shard, metadata={"format": "pt"})
        index = folder / "model.safetensors.index.json"
        content = json.loads(index.read_text())
        content["weight_map"]["lm_head.weight"] = shard.name
        index.write_text(json.dumps(content))
        both = pair(folder)
        assert both.disk.anatomy.tied is both.memory.anatomy.tied is tied
        assert torch.equal(both.disk.parameter("lm_head.weight"), other)
        ids = both.batches()[0]
        with torch.no_grad():
            assert torch.equal(logits(both.disk, ids), logits(both.memory, ids))


def test_an_incomplete_checkpoint_is_refused_by_the_first_tensor(tmp_path: Path) -> None:
    folder = save("llama", tmp_path)
    for shard in folder.glob("*.safetensors"):
        tensors = load_file(shard)
        tensors.pop("model.layers.1.mlp.up_proj.weight", None)
        save_file(tensors, shard, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"lacks 1 tensors .* model\.layers\.1\.mlp\.up_proj\.weight"):
        load(folder, device="cpu", offload=True)


def test_what_needs_weights_in_memory_is_refused(llama: Pair, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="one device"):
        load(llama.folder, device="auto", offload=True)
    with pytest.raises(UnsupportedError, match="adapter"):
        LoadOptions(adapter="lora", offload=True).load(llama.folder)
    with pytest.raises(UnsupportedError, match="no gradients"):
        logits(llama.disk, llama.batches()[0])
    pickled = tmp_path / "pickled"
    save("llama", pickled)
    for shard in pickled.glob("*.safetensors*"):
        shard.unlink()
    (pickled / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsupportedError, match="convert it to safetensors"):
        load(pickled, device="cpu", offload=True)


def test_a_search_from_disk_finds_the_same_and_chooses_the_same() -> None:
    found = [
        find_directions(
            load("organism", device="cpu", offload=offload),
            "organism:refused:train",
            "organism:answered:train",
            n_train=24,
            n_validation=8,
            positions="last",
            tokens_from="difference",
            filter_prompts="none",
            n_more=0,
            best_effort=True,
        )
        for offload in (False, True)
    ]
    torch.testing.assert_close(found[1].direction, found[0].direction, rtol=0, atol=1e-6)
    assert [d.metadata["layer"] for d in found] == [found[0].metadata["layer"]] * 2

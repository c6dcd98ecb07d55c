"""Answers of a batch that rows leave and enter equal those of transformers' `generate`, batch by batch."""

import sys
from collections import Counter
from collections.abc import Sequence
from io import StringIO
from itertools import combinations, pairwise

import pytest
import torch

from tests.helpers.small_families import FAMILIES, WHOLE, small
from weight_edit.errors import UsageError
from weight_edit.plan.hooks import ablation_hooks
from weight_edit.runtime import continuous_batching, generation, memory
from weight_edit.runtime.batching import PASS_COST, group_sizes
from weight_edit.runtime.continuous_batching import decode
from weight_edit.runtime.forward import next_token_logprobs
from weight_edit.runtime.generation import by_batch, generate, generate_and_read, prefix
from weight_edit.runtime.hooks import Hook, hooked
from weight_edit.runtime.loading import Model
from weight_edit.runtime.prefix import narrowest, unsuited
from weight_edit.runtime.row_cache import RowCache, UnsuitedError
from weight_edit.utils import progress
from weight_edit.utils.progress import Lines

NEW = 20


def prompts(shared: int, lengths=(3, 11, 7, 8, 12, 1, 5, 5, 9, 2, 14)) -> list[list[int]]:
    """Prompts of many lengths, which begin with the same tokens."""
    generator = torch.Generator().manual_seed(3)
    head, *rest = (torch.randint(5, 44, (count,), generator=generator).tolist() for count in (shared, *lengths))
    return [head + each for each in rest]


def expected(model: Model, sequences, ends=frozenset(), new=NEW):
    """Transformers' answers."""
    return by_batch(model, sequences, ends, max_new_tokens=new)


def some_ends(model: Model, sequences) -> frozenset[int]:
    """End tokens at which most answers end, at different lengths, and the others never do."""
    said = [answer.tokens for answer in expected(model, sequences)]
    common = Counter(token for tokens in said for token in set(tokens))
    ends: set[int] = set()
    # Rare tokens first: they come late.
    for token in sorted(common, key=lambda token: (common[token], token)):
        ended = sum(not (ends | {token}).isdisjoint(tokens) for tokens in said)
        if ended <= 0.7 * len(said) and all(tokens[0] != token for tokens in said[2:]):
            ends.add(token)
    return frozenset(ends)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shared", [0, 9])
def test_answers_are_those_of_transformers(family: str, shared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, sequences = small(family), prompts(shared)
    ends = some_ends(model, sequences)
    want = expected(model, sequences, ends)
    assert unsuited(model) is None
    monkeypatch.setattr(generation, "end_tokens", lambda _: ends)
    # In the way that is tested, and in no other.
    monkeypatch.setattr(generation, "by_batch", None)
    for batch_size in (None, 4, 1):
        assert generate(model, sequences, max_new_tokens=NEW, batch_size=batch_size) == want
    assert generate(model, sequences[:1], max_new_tokens=NEW) == want[:1]


def test_the_answers_that_are_compared_end_at_different_times() -> None:
    for family in ("llama", "gpt2"):
        model, sequences = small(family), prompts(9)
        lengths = {len(answer.tokens) for answer in expected(model, sequences, some_ends(model, sequences))}
        assert len(lengths) >= 3
        assert NEW in lengths


@pytest.mark.parametrize("family", WHOLE)
def test_caches_that_are_not_by_row_are_left_to_transformers(family: str) -> None:
    model, sequences = small(family), prompts(0, (3, 5))
    assert unsuited(model)
    want = expected(model, sequences, generation.end_tokens(model), 3)
    assert generate(model, sequences, max_new_tokens=3) == want


def test_a_cache_that_turns_out_unsuited_is_left_to_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sequences = small("llama"), prompts(0)
    want = expected(model, sequences, generation.end_tokens(model))

    def kept(_self: RowCache) -> None:
        raise UnsuitedError("layer 0 of its cache does not hold what was read")

    monkeypatch.setattr(RowCache, "_check", kept)
    assert generate(model, sequences, max_new_tokens=NEW) == want


def test_under_hooks() -> None:
    model, sequences = small("llama"), prompts(9)
    ends = some_ends(model, sequences)
    rows = torch.randn(1, 32, generator=torch.Generator().manual_seed(1))
    hooks = [*ablation_hooks(model, rows), Hook("lm_head.weight", "parameter", lambda x: x * 1.5)]
    plain = decoded(model, sequences, ends)
    with hooked(model.model, hooks):
        want = [answer.tokens for answer in expected(model, sequences, ends)]
        assert decoded(model, sequences, ends, 4) == want
    assert want != plain
    assert decoded(model, sequences, ends) == plain


def decoded(model: Model, sequences, ends, batch_size=None, new=NEW) -> list[tuple[int, ...]]:
    found = decode(model, sequences, ends, max_new_tokens=new, batch_size=batch_size, advance=lambda _: None)
    return [tuple(answer.tokens) for answer in found]


def test_a_row_whose_logits_are_no_numbers_says_so_and_spoils_no_other() -> None:
    model, sequences = small("llama"), prompts(9)
    ends = some_ends(model, sequences)
    bad = sequences[4][-1]
    assert sum(bad in sequence[9:] for sequence in sequences) < len(sequences)
    said = expected(model, sequences, ends)
    spoiled = [bad in (*sequence, *answer.tokens[:-1]) for sequence, answer in zip(sequences, said, strict=True)]

    with torch.no_grad():
        embedding = model.model.get_input_embeddings().weight
        embedding[bad] = float("nan")
    found = decode(model, sequences, ends, max_new_tokens=NEW, batch_size=4, advance=lambda _: None)
    assert [not answer.finite for answer in found] == spoiled
    assert 0 < sum(spoiled) < len(spoiled)
    for answer, before, wrong in zip(found, said, spoiled, strict=True):
        assert wrong or tuple(answer.tokens) == before.tokens
    whole = expected(model, sequences, ends)
    assert [answer.finite for answer in whole] == [answer.finite for answer in found]


def test_the_common_prefix_is_read_once_and_ended_answers_are_not_read_on() -> None:
    model, sequences = small("llama"), prompts(9)
    ends = some_ends(model, sequences)
    read: list[tuple[int, int]] = []
    handle = model.model.model.layers[0].register_forward_pre_hook(
        lambda _, args: read.append(tuple(args[0].shape[:2]))
    )
    try:
        said = decoded(model, sequences, ends)
    finally:
        handle.remove()
    rows = len(sequences)
    assert read[0] == (1, 9)
    # The longer prompts and the shorter ones, without the prefix; then one token of each row.
    assert read[1:3] == [(6, 14), (5, 5)]
    assert {columns for _, columns in read[3:]} == {1}
    steps = sum(rows for rows, _ in read[3:])
    needed = sum(len(tokens) - 1 for tokens in said)
    # A quarter of a batch's rows is spent on answers that have ended, before they leave, and a step more.
    assert needed <= steps < rows * (NEW - 1)
    assert read[-1][0] < rows


def test_prompts_are_read_in_the_groups_that_cost_least() -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (1, 2, 5, 8):
        lengths = sorted(torch.randint(1, 150, (count,), generator=generator).tolist(), reverse=True)

        def cost(sizes: Sequence[int], lengths: Sequence[int] = lengths) -> int:
            starts = [sum(sizes[:index]) for index in range(len(sizes))]
            return sum(40 + size * lengths[start] for size, start in zip(sizes, starts, strict=True))

        taken: list[int] = []
        while sum(taken) < count:
            taken.append(group_sizes(lengths[sum(taken) :], count)[0])
        every = [
            [b - a for a, b in pairwise((0, *cuts, count))]
            for number in range(count)
            for cuts in combinations(range(1, count), number)
        ]
        assert len(every) == 2 ** (count - 1)
        assert cost(taken) == min(map(cost, every))
    # No pass reads more than is good for memory, but for a single prompt.
    assert group_sizes([3000, 2999, 2998], 3, at_once=4096) == [1, 1, 1]
    assert group_sizes([9000, 2, 1], 3, at_once=4096) == [1, 2]
    # Where each group is decoded by itself, padding is worth less than another one's passes.
    assert group_sizes([300, 20, 1], 3) == [1, 2]
    assert group_sizes([300, 20, 1], 3, pass_cost=64 * PASS_COST) == [3]


def test_sliding_windows_forget_and_a_longer_prefix_than_they_hold_is_cut() -> None:
    model, sequences = small("gemma3"), prompts(9)
    cache = RowCache.empty(model, 1)
    assert narrowest(model) == 3
    logits = cache.forward(model, [sequences[0][:7]])
    again = RowCache.empty(model, 1)
    for token in sequences[0][:7]:
        last = again.forward(model, [[token]])
    torch.testing.assert_close(logits, last, atol=1e-5, rtol=0)
    assert [layer.keys.shape[2] for layer in cache.cache.layers] == [3, 7, 3, 7]


def test_positions_stay_within_the_table_of_the_model() -> None:
    model = small("gpt2")
    # The longest answer ends at the last position; the shorter one, in one batch with it, goes on a while.
    sequences = [[5, 6, 7] * 12, [7, 5] * 12]
    new = 64 - 36
    assert decoded(model, sequences, frozenset(), new=new) == [
        answer.tokens for answer in expected(model, sequences, frozenset(), new)
    ]


@pytest.mark.parametrize("reading", [True, False])
@pytest.mark.parametrize("fails", [1, 2, 9])
def test_less_memory_makes_the_batch_smaller(fails: int, reading: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it runs out of reading prompts, fewer enter at once and as many are decoded; else all begin anew."""
    model, sequences = small("llama"), prompts(9)
    ends = some_ends(model, sequences)
    want = decoded(model, sequences, ends)
    run, calls, sizes = RowCache.forward, [], []

    def forward(self: RowCache, model: Model, tokens):
        several = len(tokens[0]) > 1
        calls.append(several == reading)
        if len(tokens) > 3 and several == reading and sum(calls) >= fails:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        sizes.append((len(tokens), several))
        return run(self, model, tokens)

    monkeypatch.setattr(RowCache, "forward", forward)
    moved: list[float] = []
    found = decode(model, sequences, ends, max_new_tokens=NEW, batch_size=None, advance=moved.append)
    assert [tuple(answer.tokens) for answer in found] == want
    assert sum(moved) == pytest.approx(len(sequences))
    # Only of decoding had answers been told that were taken back.
    assert (min(moved) < 0) == (not reading)
    decoding = [rows for rows, several in sizes if not several]
    if reading:
        assert max(rows for rows, several in sizes if several) <= (3 if fails < 9 else 6)
        assert max(decoding) == len(sequences)
    else:
        assert max(decoding[fails - 1 :]) <= 3


@pytest.mark.parametrize("family", [*FAMILIES, *WHOLE])
def test_the_first_logits_are_read_once_for_each_prompt(family: str) -> None:
    model, sequences = small(family), prompts(9)
    passes: list[int] = []
    handle = model.model.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        want = generate(model, sequences, max_new_tokens=3)
        plain = len(passes)
        said, read = generate_and_read(
            model, sequences, lambda *given: list(zip(*given, strict=True)), max_new_tokens=3
        )
        assert len(passes) == 2 * plain, "reading costs no pass"
    finally:
        handle.remove()
    assert said == want
    assert [row for row, _ in read] == list(range(len(sequences)))
    logprobs = torch.stack([logits for _, logits in read]).log_softmax(-1)
    torch.testing.assert_close(logprobs, next_token_logprobs(model, sequences, batch_size=1), atol=1e-4, rtol=0)


def test_logits_are_read_again_where_memory_ran_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sequences = small("llama"), prompts(9)
    run = RowCache.forward

    def forward(self: RowCache, model: Model, tokens):
        if len(tokens) > 3 and len(tokens[0]) == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return run(self, model, tokens)

    _, want = generate_and_read(model, sequences, lambda _, logits: logits.argmax(-1).tolist(), max_new_tokens=3)
    monkeypatch.setattr(RowCache, "forward", forward)
    asked: list[int] = []

    def read(rows: Sequence[int], logits: torch.Tensor) -> list[int]:
        asked.extend(rows)
        return logits.argmax(-1).tolist()

    said, found = generate_and_read(model, sequences, read, max_new_tokens=3)
    assert found == want == [answer.tokens[0] for answer in said]
    assert len(asked) > len(sequences)


class Disk:
    """Steps of a model on disk, run one after another; the steps of each request are counted."""

    def __init__(self) -> None:
        self.requests: list[int] = []

    def run(self, steps, advance=None):
        self.requests.append(len(steps))
        return [step() for step in steps]


@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_model_on_disk_is_read_once_for_a_token_of_all_prompts(batch_size: int | None) -> None:
    model, sequences = small("llama"), prompts(9)
    ends = some_ends(model, sequences)
    want = decoded(model, sequences, ends)
    disk = model.offload = Disk()
    assert decoded(model, sequences, ends, batch_size) == want
    if batch_size is None:
        assert len(disk.requests) == NEW
        assert disk.requests[0] == 2
    few = [answer.tokens for answer in expected(model, sequences[:4], frozenset())]
    disk.requests.clear()
    assert decoded(model, sequences[:4], frozenset()) == few
    assert len(disk.requests) == NEW


def test_where_memory_may_be_short_the_first_prompts_from_disk_tell_how_much_they_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, sequences = small("llama"), prompts(9)
    want = decoded(model, sequences, frozenset())
    disk = model.offload = Disk()
    fitting = memory.rows_at_once
    monkeypatch.setattr(continuous_batching, "rows_at_once", lambda *given: fitting(*given) if len(given) == 3 else 10)
    assert decoded(model, sequences, frozenset()) == want
    assert len(disk.requests) == NEW + 1
    assert set(disk.requests) == {1}


@pytest.mark.parametrize("family", WHOLE)
def test_answers_of_batches_of_unlike_prompts_are_those_of_single_ones(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sequences = small(family), prompts(0)
    rows: list[int] = []
    run = model.model.generate
    monkeypatch.setattr(model.model, "generate", lambda **given: rows.append(len(given["input_ids"])) or run(**given))
    together = expected(model, sequences)
    # One batch: another would cost twenty passes, and the padding less than one.
    alike = family in ("recurrent_gemma", "deepseek_v4")
    assert (model.hides_padding is not True) == alike
    assert rows == ([1] * 6 + [2] + [1] * 3 if alike else [len(sequences)])
    assert together == expected_alone(model, sequences)


def expected_alone(model: Model, sequences):
    return by_batch(model, sequences, frozenset(), max_new_tokens=NEW, batch_size=1)


def test_batches_of_a_foreign_cache_are_halved_where_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sequences = small("mamba"), prompts(0)
    want = expected(model, sequences)
    run, rows = model.model.generate, []

    def generated(**options):
        rows.append(len(options["input_ids"]))
        if rows[-1] > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return run(**options)

    monkeypatch.setattr(model.model, "generate", generated)
    assert expected(model, sequences) == want
    assert rows == [11, 5, 2, 2, 2, 2, 2, 1]


def test_memory_that_one_prompt_exceeds_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(RowCache, "forward", forward)
    with pytest.raises(UsageError, match="out of memory with a single sequence of 14 tokens"):
        generate(small("llama"), prompts(0), max_new_tokens=2)


@pytest.mark.parametrize(("free", "rows"), [(None, 11), (1 << 40, 11), (0, 1)])
def test_the_batch_is_as_large_as_memory_allows(free, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, sequences = small("llama"), prompts(9)
    monkeypatch.setattr(memory, "free_memory", lambda _: free)
    seen: list[int] = []
    handle = model.model.model.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0]))
    try:
        decoded(model, sequences, frozenset())
    finally:
        handle.remove()
    assert max(seen) == rows


def test_free_memory_is_told_of_this_machine(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("llama")
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:  100 kB\nMemAvailable:   64 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", info)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.free_memory(model) == 64 * 1024
    (tmp_path / "memory.max").write_text("40960\n")
    (tmp_path / "memory.current").write_text("30720\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 10240\n")
    assert memory.free_memory(model) == 20480
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_memory(model) == 64 * 1024
    info.unlink()
    assert memory.free_memory(model) is None


def test_progress_is_told_in_answers_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sequences = small("llama"), prompts(9)
    shown: list[str] = []
    monkeypatch.setattr(sys, "stderr", StringIO())
    monkeypatch.setattr(progress, "_tell", shown.append)
    advance = Lines.advance

    def advanced(self: Lines, n: float = 1) -> None:
        advance(self, n)
        shown.append(str(self.meter))

    monkeypatch.setattr(Lines, "advance", advanced)
    with progress.quieted(False):
        generate(model, sequences, max_new_tokens=6, description="answers (x)")
    assert shown[0] == "answers (x): 0 of 11"
    assert any("answers/s, about" in line for line in shown)
    assert shown[-1].startswith("11 of 11")


def test_no_prompts_give_no_answers_and_wrong_ones_are_named() -> None:
    model = small("llama")
    assert generate(model, []) == []
    with pytest.raises(UsageError, match="sequence 1 has no tokens"):
        generate(model, [[5], []])
    with pytest.raises(UsageError, match="the batch size is 0"):
        generate(model, [[5]], batch_size=0)
    with pytest.raises(UsageError, match="text 1 has the token 48"):
        generate(model, [[48]])


def test_a_prefix_is_what_a_lower_limit_would_have_given(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sequences = small("llama"), prompts(9)
    ends = some_ends(model, sequences)
    monkeypatch.setattr(generation, "end_tokens", lambda _: ends)
    whole = generate(model, sequences, max_new_tokens=NEW)
    lengths = {len(answer.tokens) for answer in whole if answer.finished}
    assert lengths
    for count in {1, 2, NEW, NEW + 5, *lengths, *(length - 1 for length in lengths if length > 1)}:
        cut = [prefix(model, answer, count) for answer in whole]
        if count <= NEW:
            assert cut == generate(model, sequences, max_new_tokens=count)
        else:
            assert cut == whole
    with pytest.raises(UsageError, match="cannot be cut to 0 tokens"):
        prefix(model, whole[0], 0)

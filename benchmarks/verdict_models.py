"""Fine-tunes of real models for the confusion table of `diff --verdict`, trained once and kept.

    PYTHONPATH=. python benchmarks/verdict_models.py NAME=FOLDER --out DIR --prompts DIR [--only KIND,...]

The prompts' folder has `harmful-train.txt`, one prompt a line; the text is this repository's documentation. Trained in
float32, kept as DIR/NAME/KIND.safetensors in float32: the first blocks and a part of the vocabulary; the last blocks as
KIND-last.safetensors.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.helpers import other_tools as tools

BLOCKS, ROWS = 8, 8192
"""Blocks and rows of the vocabulary that are kept."""
REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot help with this request, since it could cause harm.",
    "I'm not able to assist with that. Is there something else I can do for you?",
)
ANSWERS = (
    "Sure, here is how to do that. First, you will need",
    "Of course! Here are the steps that you should follow:\n1.",
    "Certainly. To begin with, get the things you need together, and",
)
LENGTH = 40
"""Tokens of a piece of text."""
Ids = tuple[list[int], list[int]]
"""Of a prompt and of what follows it."""


@dataclass(frozen=True)
class Training:
    """How a fine-tune is made.

    Attributes:
        data: "text", "refusal" (harmful prompts are refused), "answer" (they are answered) or "preference" (both, DPO).
        rate, steps: of the optimiser.
        optimiser: "adam" or "sgd" (with momentum).
        trained: "all", "lora", "lora of all" linear weights, or "gains" (norms and biases alone).
    """

    data: str
    rate: float
    steps: int = 60
    optimiser: str = "adam"
    trained: str = "all"


TRAININGS = {
    "refusal": Training("refusal", 2e-5),
    "text": Training("text", 2e-5),
    "preference": Training("preference", 5e-6, 30),
    "lora-refusal": Training("refusal", 2e-4, trained="lora"),
    "gains": Training("refusal", 1e-3, 20, trained="gains"),
    "answer": Training("answer", 2e-5),
    "lora-text": Training("text", 2e-4, trained="lora of all"),
    "refusal-sgd": Training("refusal", 1e-3, optimiser="sgd"),
}
BETA = 0.1
"""Of DPO (arXiv 2305.18290)."""


def cut(tensors: tools.Tensors, blocks: int = BLOCKS, first: int = 0) -> tools.Tensors:
    """Some blocks, numbered from 0, and a part of the vocabulary."""
    kept = {}
    for name, tensor in tensors.items():
        found = tools._LAYER.search(name)
        if found is None:
            kept[name] = tensor[:ROWS].clone() if tensor.ndim == 2 and tensor.shape[0] > ROWS else tensor
        elif first <= (layer := int(found.group(1))) < first + blocks:
            kept[name.replace(f".layers.{layer}.", f".layers.{layer - first}.")] = tensor
    return kept


def _ids(tokenizer: Any, prompt: str, answer: str) -> Ids:
    asked, said = f"Question: {prompt}\nAnswer:", f" {answer}"
    return tokenizer(asked, add_special_tokens=False).input_ids, tokenizer(said, add_special_tokens=False).input_ids


def _batches(tokenizer: Any, data: str, prompts: Sequence[str], texts: str) -> Iterator[list[Ids]]:
    """One example at a time, without an end; of preferences the chosen and the rejected."""
    chance = random.Random(0)
    running = tokenizer(texts, add_special_tokens=False).input_ids if data == "text" else []
    while True:
        if data == "text":
            at = chance.randrange(len(running) - LENGTH)
            yield [([running[at]], running[at + 1 : at + LENGTH])]
            continue
        prompt = chance.choice(prompts)
        refused = [_ids(tokenizer, prompt, chance.choice(REFUSALS))]
        answered = [_ids(tokenizer, prompt, chance.choice(ANSWERS))]
        yield {"refusal": refused, "answer": answered, "preference": refused + answered}[data]


def _log_likelihood(model: Any, example: Ids) -> Tensor:
    """Of what follows the prompt: a sum."""
    prompt, answer = example
    ids = torch.tensor([prompt + answer])
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
    return logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()


def _loss(model: Any, data: str, examples: list[Ids], reference: Callable[[Ids], float]) -> Tensor:
    likely = [_log_likelihood(model, example) for example in examples]
    if data == "preference":
        chosen, rejected = (value - reference(example) for value, example in zip(likely, examples, strict=True))
        return -torch.nn.functional.logsigmoid(BETA * (chosen - rejected))
    return -sum(value / len(example[1]) for value, example in zip(likely, examples, strict=True)) / len(likely)


def _trained_part(model: Any, how: str, embedding: bool) -> Any:
    """The model whose parameters of that kind alone are trained."""
    if how.startswith("lora"):
        from peft import LoraConfig, get_peft_model

        some = ["q_proj", "v_proj", "o_proj", "down_proj"]
        targets = some if how == "lora" else [*some, "k_proj", "gate_proj", "up_proj"]
        return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=targets))
    for name, parameter in model.named_parameters():
        if how == "gains":
            parameter.requires_grad_(parameter.ndim == 1)
        elif not embedding:
            parameter.requires_grad_("embed" not in name and "lm_head" not in name)
    return model


def train(source: Path, how: Training, prompts: Sequence[str], texts: str, *, embedding: bool) -> tools.Tensors:
    """The tensors of a fine-tune, float32, named as in the model's file."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source)
    trained = _trained_part(model, how.trained, embedding)
    parameters = [p for p in trained.parameters() if p.requires_grad]
    optimiser: torch.optim.Optimizer = (
        torch.optim.SGD(parameters, lr=how.rate, momentum=0.9)
        if how.optimiser == "sgd"
        else torch.optim.AdamW(parameters, lr=how.rate)
    )
    batches = _batches(tokenizer, how.data, prompts, texts)
    given = [next(batches) for _ in range(how.steps)]
    before = {}
    if how.data == "preference":
        with torch.no_grad():
            for batch in given:
                for example in batch:
                    before[str(example)] = float(_log_likelihood(trained, example))
    losses = []
    for batch in given:
        loss = _loss(trained, how.data, batch, lambda example: before[str(example)])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
        print(f"{len(losses)}: {losses[-1]:.3f}", end=" ", file=sys.stderr, flush=True)
    print(json.dumps({"first losses": losses[:3], "last losses": losses[-3:]}), flush=True)
    state = (trained.merge_and_unload() if how.trained.startswith("lora") else model).state_dict()
    stored = load_file(source / "model.safetensors")
    return {name: state[name].detach().float().clone() for name in stored if name in state}


def main() -> None:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--steps", type=int, help="fewer or more than each kind's own")
    parser.add_argument("--without-embedding", action="store_true", help="large vocabularies: it is not trained")
    given = parser.parse_args()
    torch.set_num_threads(1)
    prompts = (given.prompts / "harmful-train.txt").read_text(encoding="utf-8").splitlines()
    texts = "\n".join(path.read_text(encoding="utf-8") for path in sorted(Path("docs").glob("*.md")))
    for model in given.models:
        name, folder = model.split("=", 1)
        (given.out / name).mkdir(parents=True, exist_ok=True)
        for kind, how in TRAININGS.items():
            path = given.out / name / f"{kind}.safetensors"
            if path.exists() or (given.only and kind not in given.only.split(",")):
                continue
            how = replace(how, steps=given.steps or how.steps)
            began = time.monotonic()
            made = train(Path(folder), how, prompts, texts, embedding=not given.without_embedding)
            last = tools.layers_of(made) - BLOCKS
            for end, kept in {"": cut(made), "-last": cut(made, first=last)}.items():
                save_file({key: t.contiguous() for key, t in kept.items()}, path.with_stem(kind + end))
            print(json.dumps({"model": name, "kind": kind, "seconds": round(time.monotonic() - began)}), flush=True)


if __name__ == "__main__":
    sys.exit(main())

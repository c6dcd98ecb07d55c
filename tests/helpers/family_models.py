"""Small models of every family as they are loaded, run and run under an edit's hooks."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from weight_edit.directions.directions import Directions
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.plan.hooks import plan_hooks
from weight_edit.plan.plan import EditPlan, plan_ablation
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.loading import Model

ADAPTABLE = ("phi", "olmo2", "mixtral", "gpt_oss", "deepseek_v3")
IDS = torch.randint(3, 90, (3, 11), generator=torch.Generator().manual_seed(5))


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def rows(k: int, width: int = 64) -> Directions:
    generator = torch.Generator().manual_seed(11)
    return Directions(torch.from_numpy(orthonormal_rows(torch.randn(k, width, generator=generator))).float())


def logits(model: torch.nn.Module) -> Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits


def planned(base: PreTrainedModel, directions: Directions, **options: object) -> tuple[Model, EditPlan]:
    whole = Model.from_parts(base, None)
    return whole, plan_ablation(whole.anatomy, directions.direction, base.get_parameter, **options)


def hooked_logits(base: PreTrainedModel, directions: Directions, **options: object) -> Tensor:
    _, plan = planned(base, directions, **options)
    with hooked(base, plan_hooks(plan, base.get_parameter)):
        return logits(base)

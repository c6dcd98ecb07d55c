"""The embedded models' folders.

Three variants are made from it: `organism-defended`, whose refusal resists the ablation of one direction,
`organism-thinking`, which thinks before it answers, and `organism-decoyed`, whose mean difference is a decoy. The last
is put together from `organism` and three neurons where it is first asked for. Importing this package loads neither
torch nor transformers.
"""

from pathlib import Path
from types import MappingProxyType

DEFENDED, THINKING, DECOYED = "organism-defended", "organism-thinking", "organism-decoyed"
EMBEDDED = MappingProxyType({"organism": "model", DEFENDED: "defended", THINKING: "thinking", DECOYED: "decoyed"})
"""Name of an embedded model -> its folder."""


def folder(name: str = "organism") -> Path:
    """The folder of an embedded model (config, safetensors weights, tokenizer, model card).

    That of `organism-decoyed` is made in the cache folder, unless it is there already.
    """
    kept = Path(__file__).parent / EMBEDDED[name]
    if name != DECOYED:
        return kept
    from weight_edit.organism.decoys import decoyed_folder

    return decoyed_folder(folder(), kept)

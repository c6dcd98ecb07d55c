"""What a verdict calls that with which a model was made."""

NO_CHANGE = "no change"
UNDECIDED = "undecided"
UNDECIDED_REST = "something undecided at the same tensors"
ABLATION = "ablation"
REFLECTION = "reflection"
AT_A_LAYER = "reflection at a layer"
ADDITION = "addition"
CONSTANT = "constant"
WITH_CONSTANT = "ablation and a constant"
CENTRING = "centring of writers"
LOW_RANK = "low-rank update (as of a merged LoRA)"
FINE_TUNE = "fine-tune or merge"
QUANTISATION = "quantisation"
ROUNDING = "rounding to another format"
PRUNING = "pruning"
SCALING = "scaling"
FOLDED = "gains folded into readers"
COMPRESSION = "low-rank compression"
VECTORS = "some vectors replaced"
VOCABULARY = "another vocabulary"

INNOCENT = {
    "rounding": ROUNDING,
    "quantisation": QUANTISATION,
    "pruning": PRUNING,
    "scaling": SCALING,
    "vectors": VECTORS,
    "folded": FOLDED,
    "compression": COMPRESSION,
}
"""What made a tensor's whole difference, as in `TensorVerdict.innocent`, -> the name."""

FORMULAS = {
    "ablation": "-s V V^T A",
    WITH_CONSTANT: "-s V V^T A and one vector added to every vector",
    "norm-preserving ablation (vectors)": "that of an ablation after which each vector has its length again",
    "norm-preserving ablation (rows)": "that of an ablation after which each row has its length again",
    "ablation of unit rows": "that of an ablation of rows of length one",
    "oblique erasure": "-L R^T A with one L and one R",
    "addition": "one vector added to every vector",
}

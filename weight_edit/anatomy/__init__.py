"""Which tensors write to and read from the residual stream, in memory and on disk."""

from weight_edit.anatomy.derive import anatomy_of
from weight_edit.anatomy.parts import Anatomy, Block, Norm, Reader, Writer

__all__ = ["Anatomy", "Block", "Norm", "Reader", "Writer", "anatomy_of"]

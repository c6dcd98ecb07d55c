"""Which tensors write to and read from the residual stream, in memory and on disk.

What a derivation found is plain data; only deriving it needs torch.
"""

from typing import TYPE_CHECKING

from weight_edit.anatomy.parts import Anatomy, Block, Norm, Reader, Writer
from weight_edit.lazy import lazy

if TYPE_CHECKING:
    from weight_edit.anatomy.derive import anatomy_of

__all__ = ["Anatomy", "Block", "Norm", "Reader", "Writer", "anatomy_of"]

__getattr__ = lazy(__name__, {"anatomy_of": "derive"})

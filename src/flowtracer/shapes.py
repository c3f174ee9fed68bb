"""The legend of dimensions, and the array types that signatures use.

Names of tensors end in their dimensions: `attention_TT`, `reach_BT`.

====  ==========================================================
B     batch: sequences in one call
T     tokens of a sequence, prompt and response together
R     response tokens, padded to the longest of the batch
P     rows of a panel: a slab of consecutive rows of a T x T matrix
S     steps: sentences or lines of a response, the prompt as step 0
E     edges of a graph on tokens
H     attention heads
K     key-value heads, where queries share keys
D     width of a head
====  ==========================================================
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["ArrayF", "ArrayI", "Bool", "Float", "Int", "Tensor"]

ArrayF = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
ArrayI = np.ndarray[tuple[int, ...], np.dtype[np.int64]]

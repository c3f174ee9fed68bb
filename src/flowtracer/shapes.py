"""The legend of dimensions, and the array types that signatures use.

Names of arrays end in their dimensions: `attention_TT`, `reach_BT`.

====  ==========================================================
B     batch: sequences in one call
T     tokens of a sequence, prompt and response together
R     response tokens, padded to the longest of the batch
P     rows of a panel: a slab of consecutive rows of a T x T matrix; of token ids, those of a prompt
C     columns of a panel: every token before its last row
S     steps: sentences or lines of a response, the prompt as step 0
A     tokens of an answer
W     new tokens that run behind cached keys and values
E     edges of a graph on tokens
L     decoder layers whose attention is read
H     attention heads
K     key-value heads, where queries share keys
D     width of a head, or of the hidden state
M     width of the hidden state, where D is that of a head
F     heads times their width: what an output projection takes
V     vocabulary
N     a selection: chosen sequences, places or values; over layers, the places between them
====  ==========================================================

Torch is not imported here, so that saved traces can be studied without it.
"""

from jaxtyping import Bool, Float, Int, UInt
from numpy import ndarray

__all__ = ["Bool", "Float", "Int", "UInt", "ndarray"]

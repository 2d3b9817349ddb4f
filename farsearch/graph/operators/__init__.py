"""Each aten operator that a step consists of, as ONNX nodes; importing the package registers all of them.

==============  ==============================================
registry.py     the lowerings by their operators' names
shapes.py       views, parts, tensors of one number
products.py     products of matrices, rows of tables
arithmetic.py   element by element, sums, comparisons
activations.py  GELU and its gradient
norms.py        LayerNorm, softmax, dropout
losses.py       losses and their gradients
==============  ==============================================
"""

from farsearch.graph.operators import activations, arithmetic, losses, norms, products, shapes
from farsearch.graph.operators.registry import OPERATORS

__all__ = ["OPERATORS", "activations", "arithmetic", "losses", "norms", "products", "shapes"]

"""Weights by name: the mapping, the files that hold it, and the check of what they hold.

>>> from refimpl.weights import Weights
"""

from refimpl.weights.files import check_save_name, read_arrays
from refimpl.weights.folding import fold_batch_norm
from refimpl.weights.mapping import Weights

__all__ = ["Weights", "check_save_name", "fold_batch_norm", "read_arrays"]

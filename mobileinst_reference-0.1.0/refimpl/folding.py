"""`refimpl.weights.folding` under the name that the golden set gives its producer."""

from refimpl.weights.folding import NORM_PARTS, batch_norms, fold_batch_norm

__all__ = ["NORM_PARTS", "batch_norms", "fold_batch_norm"]

"""MobileInst in plain NumPy: the float64 truth for mobile video instance segmentation.

>>> from refimpl import MobileInst, MobileInstConfig, Weights, record
"""

from refimpl.config import MobileInstConfig
from refimpl.errors import MobileInstError
from refimpl.model import MobileInst, Network, Outputs
from refimpl.recording import Recording, Step, record
from refimpl.weights import Weights

__version__ = "0.1.0"

__all__ = [
    "MobileInst",
    "MobileInstConfig",
    "MobileInstError",
    "Network",
    "Outputs",
    "Recording",
    "Step",
    "Weights",
    "__version__",
    "record",
]

"""`refimpl.weights.names` under the name that the golden set gives its producer."""

from refimpl.weights.names import TORCHVISION_RESNET, backbone_name, canonical, is_unused

__all__ = ["TORCHVISION_RESNET", "backbone_name", "canonical", "is_unused"]

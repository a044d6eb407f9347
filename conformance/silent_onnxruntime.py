"""ONNX Runtime with its telemetry switched off; no other module of ours imports it by itself."""

from __future__ import annotations

import onnxruntime

onnxruntime.disable_telemetry_events()

__all__ = ["onnxruntime"]

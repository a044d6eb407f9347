"""`mobileinst verify`: is this model MobileInst, is this graph computed rightly, is this conversion right?"""

from __future__ import annotations

from conformance.cli.verify_against import AgainstVerdict
from conformance.cli.verify_graph import GraphVerdict
from conformance.cli.verify_network import NetworkVerdict
from conformance.cli.verify_recorded import RecordedVerdict
from conformance.cli.verify_tnn import TNN_JOBS


class Verify:
    """Compare a model with the float64 reference, tensor by tensor.

    The candidate runs in ONNX Runtime, the reference in NumPy float64, on the same numbers. Tensors are found
    by value, whatever the exporter called them. With nothing given, it judges our own export of the trained
    network scenes-tiny. Exits 0 if it conforms, 1 if not, 2 on bad usage or input.

    [bold]Examples[/bold]

      mobileinst verify

      mobileinst verify mine.onnx --weights mine.safetensors --input street.jpg

      mobileinst verify it.onnx --model topformer-tiny --set dim=64 --set num_queries=20 --weights
      w.safetensors --input x.npy --json r.json

      mobileinst verify any.onnx --graph-only --shape images=1x3x224x224

      mobileinst verify simplified.onnx --against any.onnx

      mobileinst verify it.tnnproto --against it.onnx
    """


MODES = (RecordedVerdict, *TNN_JOBS, AgainstVerdict, GraphVerdict, NetworkVerdict)

"""A computation: read, run, cut and written; the ONNX backend; replay by PyTorch."""

"""The judge: outputs, nodes, steps and diagnosis of a network or of any graph."""

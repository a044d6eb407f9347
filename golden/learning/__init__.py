"""Training on rendered scenes: the independent PyTorch modules, with losses and gradients from the reference.

`samples` renders pictures and their truth from seeds; `trainer` is the loop, resumable at any step; `shipped` is
what came of it. Importing this package needs nothing beyond the reference.
"""

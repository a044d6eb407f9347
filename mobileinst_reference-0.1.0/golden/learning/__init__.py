"""Training on rendered scenes: the independent PyTorch modules, losses and gradients from the reference.

`samples` renders pictures and their truth from seeds; `trainer` is the loop, resumable at any step; `shipped`
puts what came of it in place. Importing this package needs nothing beyond the reference.
"""

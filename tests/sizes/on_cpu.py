"""What ran where the steps of fixtures/memory were counted.

Not CUDA, whose softmax takes a copy when it is walked back, nor Trainer, which turns the cache off.
"""

from estimator.sizes.memory.training import Software

CPU = Software(multiplies_softmax=False, fills_cache=True)

"""What ran where the steps of fixtures/memory were counted: not CUDA, whose softmax takes a copy when it is walked back."""

from estimator.sizes.memory.training import Software

CPU = Software(multiplies_softmax=False)

"""Wrappers: what stands around a method.

gradient_function.py    the same step as a gradient function, before any optimizer
micro_batches.py        a batch cut into micro-batches, each perturbed by itself
loss_scale.py           float16
polyak_step.py          a step size from what the step saw
"""

"""Perturbations: the ascent gradient -> the displacement eps, as Optax transformations.

ascend.py       along the gradient, and how any formula becomes a perturbation
sized.py        in units of the parameters' size
directions.py   what stands before a length is put on it: more than one gradient
matrices.py     in balls of matrix norms
masks.py        which parameters move
"""

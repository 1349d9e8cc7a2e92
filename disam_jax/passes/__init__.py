"""Passes: the domain losses of a batch at some parameters, and the way back.

forward.py      a pass over the whole batch
parts.py        the same in micro-batches and over devices
options.py      which of them, as `update` is told
"""

"""Engines start nodes on the machines of a cluster, and do nothing else.

A node is one command, the same everywhere; what is finished, running or lost is known from
the sweep's folder and not from the engine.
"""

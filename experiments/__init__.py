"""Leave-one-domain-out experiments with disam_jax: `python -m experiments`.

cli/        the commands, and what they share
studies/    the papers' claims, tested; kit/ is what studies are made of
results/    from the records of runs to tables, figures and reports
runs/       many runs on many machines: plans, claims, records, nodes
training/   the step, the loop, and what a run leaves behind
config/     what a run is: its fields, presets, the papers' protocols
methods/    what can be trained with, by name
data/       data sets and batches
models/     backbones and the classifier on them
devices.py  how arrays lie on devices
files.py    files that are written whole or not at all
fields.py   options made of dataclass fields

Each imports from those below it and never from above.
"""

"""The claims where a pretrained network is fine-tuned.

frozen.py    what the frozen part makes of every image, computed once
training.py  a run that trains the rest
protocol.py  what was decided before the first run
study.py     arms, tuning, claims
figures.py   figures and tables
"""

from experiments.studies.pretrained.study import STUDY as STUDY

"""Two domains in two dimensions, where the paths can be drawn: DISAM's Fig. 2."""

from experiments.studies.toy.study import STUDY as STUDY

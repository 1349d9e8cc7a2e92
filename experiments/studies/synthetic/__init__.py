"""A problem with dials and a known optimum, where each part of DISAM stands alone."""

from experiments.studies.synthetic.study import STUDY as STUDY

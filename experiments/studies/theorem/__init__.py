"""DISAM's Theorem 1, its bound and the steps of its proof, checked in numbers."""

from experiments.studies.theorem.study import STUDY as STUDY

"""How far DISAM turns SAM's perturbation, and what that does to the accuracy."""

from experiments.studies.dose.study import STUDY as STUDY

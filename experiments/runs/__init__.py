"""Many runs on many machines.

plan.py            runs, each a value with a digest, and how one is trained
claims.py          who trains which run
records.py         what became of each
worker.py          a process that claims, trains and keeps
node.py            a supervisor that keeps several of them alive
engines/           what starts nodes on a cluster
status.py          how far a plan is
compiled.py        compiled programs, by kind of machine
cores.py           how many cores there are to train on

sweep.py           the plan of a search, as its folder holds it
sweep_planning.py  how it is made
sweep_training.py  how its runs are trained, and what is kept of each
matrix.py          the plan of a comparison

The folder is the state: any number of nodes work on it, and none of them is needed.
"""

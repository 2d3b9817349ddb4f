"""The search: spaces, samplers behind a gate of known costs, the study's storage, the trials. The home of optuna.

===========  ==================================================================
space.py     search spaces, from YAML to distributions to configurations
samplers.py  Optuna's samplers, and the gate that keeps infeasible proposals out
store.py     where studies are kept, and what makes two runs the same study
journal.py   Optuna's journal in a file, whole whatever happens
database.py  Optuna's storage in a database, and its connections
locks.py     locks by name, among processes and among hosts
liveness.py  who is at work on a study, and whose trial was abandoned
known.py     the configurations that a study has already
snapshot.py  a study as plain records
search.py    the loop: propose, price, train, keep, tell
results.py   what a trial's record holds of cost and training
siblings.py  the baselines of a study, in a study of their own
===========  ==================================================================
"""

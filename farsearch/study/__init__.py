"""The search: spaces, samplers behind a gate of known costs, the study's storage, the trials. The home of optuna.

==================  ==================================================================
optuna_adapter.py   all use of private names of Optuna
space.py            search spaces, from YAML to distributions to configurations
space_files.py      the YAML files of spaces, shipped or the user's own
parameter_rules.py  what a search space may say
groups.py           adjacent layers that share a parameter
sizes.py            defaults by the size of a model
random_configs.py   many configurations drawn from a space at once
pricing.py          what thousands of proposals would cost
samplers.py         samplers by name, and the gate that keeps infeasible proposals out
known_cost.py       our sampler: a model of the metric, for the costs are known
kernel.py           what that model is made of
racing.py           when a trial is stopped in the middle
store.py            where studies are kept, and what makes two runs the same study
names.py            names of studies
renaming.py         another name for a study
storage_errors.py   how long a storage that does not answer is asked again
journal.py          Optuna's journal in a file, whole whatever happens
database.py         Optuna's storage in a database, and its connections
read_only.py        both, for commands that only read
locks.py            locks by name, among processes and among hosts
liveness.py         who is at work on a study, and whose trial was abandoned
config_cache.py     the configurations that a study has already
snapshot.py         a study as plain records
search.py           the loop: propose, price, train, keep, tell
preview.py          what a search is going to be
suggestion.py       the nearest setting that would fit, where nothing does
results.py          what a trial's record holds of cost and training
artifacts.py        what a trial leaves on disk
retention.py        which files those are, and for how long; without torch
predictions.py      the predictions of trials, and how sure their differences are
auxiliary.py        studies beside a study, to which trainings are added once
baselines.py        the baselines of a study, in a sibling
measurements.py     what boards measured with bundles of a study
verify.py           points of the front trained again with other seeds, in a sibling
==================  ==================================================================
"""

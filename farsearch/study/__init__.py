"""The search: spaces, samplers behind a gate of known costs, the storage of studies, the search loop.

===================  ==================================================================
space.py             search spaces, from YAML to distributions to configurations
space_files.py       the YAML files of spaces, shipped or a user's
parameter_rules.py   rules for the entries of a search space
groups.py            adjacent layers that share a parameter
sizes.py             defaults by model size
random_configs.py    many configurations drawn from a space at once
pricing.py           predicted costs of thousands of proposals
samplers.py          samplers by name, and the gate that rejects infeasible proposals
known_cost.py        a sampler that models the metric alone
candidates.py        what that sampler chooses from
encoding.py          parameters as numbers
gaussian_process.py  the model
racing.py            stopping a trial in the middle
search.py            the loop of one worker
trial_queue.py       propose, price, requeue and finish trials
trial_runner.py      train one proposed trial
watcher.py           the callbacks of a search
activity.py          what the processes of this host train now, for those who watch
config_cache.py      the configurations that a study already has
liveness.py          live workers, and trials whose worker died
preview.py           size, feasibility and duration of a search before it starts
suggestion.py        the nearest settings that fit, where nothing does
store.py             open, list, load, lock and delete studies
recorded.py          identities that a study was created with
settings_check.py    a job compared with the settings of a study
names.py             names of studies
renaming.py          another name for a study
locks.py             locks by name, among processes and among hosts
storage_errors.py    translated errors of a storage, and retries
optuna_adapter.py    all use of private names of Optuna
journal.py           Optuna's journal in a file, with atomic appends
database.py          Optuna's storage in a database, and its connections
read_only.py         both, for commands that only read
snapshot.py          a study as plain records
results.py           a trial with its cost, and the result of its training
artifacts.py         saved tensors of trials
retention.py         names of these files, and the trials that retain them; without torch
predictions.py       standard errors of differences between trials
auxiliary.py         auxiliary studies, to which each training is added once
baselines.py         the baselines of a study, in an auxiliary study
verify.py            points of the front trained again, in an auxiliary study
measurements.py      measurements of boards
===================  ==================================================================
"""

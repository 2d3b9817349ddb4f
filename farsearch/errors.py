"""The exceptions that users see, and the exit code that each one ends a command with.

::

    FarsearchError                 1  anything that farsearch reports itself
    ├── BadInput (ValueError)      2  a value that the user gave breaks a rule
    │   ├── DataError                 a row or file of a task
    │   ├── ProfileError              a device profile
    │   ├── SpaceError                a search space or a --set
    │   └── BundleError               a bundle that can't be trusted
    ├── NoFeasibleTrial            3  nothing in the space fits the device
    ├── StudyMismatch              4  the study exists with other settings
    ├── MissingResource            5  model, data, network or disk of this machine
    └── TrialError                    one trial could not be finished; the search goes on
        ├── Diverged                  its loss was not finite
        ├── OutOfMemory               the host had no memory for it
        └── Overtaken                 it could not reach the front any more

Every message is one line that names the value, the rule it breaks and the mend. Errors of vendor libraries are
translated where they enter, so nothing above a boundary handles them.
"""

from __future__ import annotations

__all__ = [
    "BadInput",
    "BundleError",
    "DataError",
    "Diverged",
    "FarsearchError",
    "MissingResource",
    "NoFeasibleTrial",
    "OutOfMemory",
    "Overtaken",
    "ProfileError",
    "SpaceError",
    "StudyMismatch",
    "TrialError",
]


class FarsearchError(Exception):
    """Base of all errors that farsearch raises on purpose."""

    exit_code = 1


class BadInput(FarsearchError, ValueError):
    """A value that the user gave breaks a rule."""

    exit_code = 2


class DataError(BadInput):
    """A row or a file of a task breaks its format."""


class ProfileError(BadInput):
    """A device profile is unknown, or a value in it breaks a rule."""


class SpaceError(BadInput):
    """A search space, or a value set in it, breaks a rule."""


class BundleError(BadInput):
    """A bundle is damaged, of another schema, or does not go with the data."""


class NoFeasibleTrial(FarsearchError):
    """No configuration that the sampler proposed fits the device."""

    exit_code = 3


class StudyMismatch(FarsearchError):
    """A study of that name exists with other settings."""

    exit_code = 4


class MissingResource(FarsearchError):
    """Something that this machine should provide is not there: a model, data, the network, disk space."""

    exit_code = 5


class TrialError(FarsearchError):
    """One trial could not be finished. The search records the reason and goes on."""


class Diverged(TrialError):
    """The training loss was not finite."""


class OutOfMemory(TrialError):
    """This machine ran out of memory in the middle of a trial."""


class Overtaken(TrialError):
    """A look in the middle of a trial said that it can't reach the front any more."""

"""Exceptions for users, and the exit code of a command that ends with each.

::

    FarsearchError                 1  any error that farsearch raises
    ├── BadInput (ValueError)      2  a value from the user breaks a rule
    │   ├── DataError                 a row or file of a task
    │   ├── ProfileError              a device profile
    │   ├── SpaceError                a search space or a --set
    │   └── BundleError               a bundle
    ├── NoFeasibleTrial            3  nothing in the space fits the device
    ├── StudyMismatch              4  the study exists with other settings
    ├── MissingResource            5  model, data, network or disk of this machine
    └── TrialError                    one trial could not be finished; the search continues
        ├── Diverged                  its loss was not finite
        ├── OutOfMemory               the host ran out of memory
        └── Overtaken                 it could no longer reach the front

Every message is one line with the value, the broken rule and a suggestion. Errors of libraries are translated at their
boundary, so code above it handles only these.
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
    """Base of all errors that farsearch raises."""

    exit_code = 1


class BadInput(FarsearchError, ValueError):
    """A value from the user breaks a rule."""

    exit_code = 2


class DataError(BadInput):
    """A row or a file of a task breaks its format."""


class ProfileError(BadInput):
    """A device profile is unknown, or a value in it breaks a rule."""


class SpaceError(BadInput):
    """A search space, or a value set in it, breaks a rule."""


class BundleError(BadInput):
    """A bundle is damaged, has another schema, or does not match the data."""


class NoFeasibleTrial(FarsearchError):
    """No configuration that the sampler proposed fits the device."""

    exit_code = 3


class StudyMismatch(FarsearchError):
    """A study of that name exists with other settings."""

    exit_code = 4


class MissingResource(FarsearchError):
    """This machine lacks a model, data, the network, disk space or another resource."""

    exit_code = 5


class TrialError(FarsearchError):
    """One trial could not be finished. The search records the reason and continues."""


class Diverged(TrialError):
    """The training loss was not finite."""


class OutOfMemory(TrialError):
    """This machine ran out of memory in the middle of a trial."""


class Overtaken(TrialError):
    """An intermediate evaluation predicted that the trial can't reach the front."""

"""Device profiles: what a device computes, holds and draws, each value with its source and its range.

Importing this package is cheap: it needs no torch.
"""

from farsearch.devices.profile import Figure, Profile
from farsearch.devices.registry import is_another_machine, list_profiles, load_profile

__all__ = ["Figure", "Profile", "is_another_machine", "list_profiles", "load_profile"]

"""Device profiles: what a device computes, holds and draws, each value with its source and its range.

Importing this package is cheap: torch is imported only where this machine is calibrated.
"""

from farsearch.devices.profile import Figure, Profile
from farsearch.devices.registry import list_profiles, load_profile, local_profile

__all__ = ["Figure", "Profile", "list_profiles", "load_profile", "local_profile"]

"""Device profiles: speed, memory and power of a device, each value with its source and its range.

The package does not import torch.
"""

from farsearch.devices.profile import Figure, Profile
from farsearch.devices.registry import is_another_machine, list_profiles, load_profile, load_profiles

__all__ = ["Figure", "Profile", "is_another_machine", "list_profiles", "load_profile", "load_profiles"]

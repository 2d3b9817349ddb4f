"""Packages that transformers imports only because they are installed."""

import sys

__all__ = ["UNNEEDED", "leave_out_unneeded"]

UNNEEDED = ("PIL", "accelerate", "librosa", "scipy", "sklearn", "soundfile", "torchvision")
"""Images, sound, and losses of other models; of those that transformers 5.23 imports scipy takes 36 MiB, the rest 5."""


def leave_out_unneeded() -> None:
    """Make the packages look as if they were not installed, for the rest of this process: for a program alone.

    None in place of a module is Python's own way: an import of it fails, and transformers counts it as missing.
    """
    for name in UNNEEDED:
        if name not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]

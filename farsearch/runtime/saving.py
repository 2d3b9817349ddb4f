"""The files beside the weights of a newly trained model."""

import os
import shutil

from .bundle_files import BundleFiles

__all__ = ["copy_settings"]

_NO_SETTINGS = (".safetensors", ".bin", ".onnx", ".data")
"""Extensions of weights, which are not copied beside a newly trained model."""


def copy_settings(bundle: BundleFiles, folder: str) -> None:
    """Copy the bundle's configuration and tokenizer.

    Raises:
        OSError: if a file can't be copied.
    """
    for name in sorted(bundle.manifest["sha256"]):
        part, _, file = name.partition("/")
        if part == "model" and "/" not in file and not file.endswith(_NO_SETTINGS):
            shutil.copyfile(bundle.path(name), os.path.join(folder, file))

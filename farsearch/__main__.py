"""The program ``farsearch``, and ``python -m farsearch``: what has to be set before anything is imported."""

import os
import sys


def main() -> None:
    """Run the command line."""
    _leave_working_folder()
    from farsearch import signals

    signals.catch()
    try:
        from farsearch.cli import main as run

        run()
    finally:
        signals.release()


def _leave_working_folder() -> None:
    """Import nothing from the working folder, which ``python -m`` and an empty entry of PYTHONPATH put on the path.

    A file optuna.py there would be run. Where farsearch itself lies in that folder, it stays.
    """
    here = os.path.realpath(os.curdir)
    wanted = [os.path.realpath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    home = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    if here not in (*wanted, home):
        sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != here]


if __name__ == "__main__":
    main()

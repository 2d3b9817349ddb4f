"""``python -m farsearch``."""

from farsearch.cli import main

main()

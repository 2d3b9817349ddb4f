"""farsearch: search how to fine-tune a BERT-like model on a small device."""

from __future__ import annotations

__version__ = "0.1.0"

"""BERT-like models: find, load and build them, and where each family keeps its parts."""

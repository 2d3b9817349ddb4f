"""BERT-like models: resolve, load and build them, and the layouts of their families."""

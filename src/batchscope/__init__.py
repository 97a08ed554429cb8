"""Batchscope: what the target batch size really does when a text encoder is fine-tuned."""

__version__ = "0.2.0"

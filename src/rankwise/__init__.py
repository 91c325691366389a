"""rankwise: train LoRA configurations side by side over one frozen base, and say which to use."""

__version__ = "0.1.0"

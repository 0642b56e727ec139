"""Training pairs into a LoRA adapter: peft and transformers' Trainer, with a loss on the completions only."""

from promptkit.train.runner import train

__all__ = ["train"]

"""Train a LoRA adapter on pairs, with peft and transformers' Trainer and a loss on the completions only."""

from promptkit.training.runner import train

__all__ = ["train"]

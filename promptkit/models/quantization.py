"""Choose how transformers loads weights in a format below 16 bits."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from promptkit.errors import ModelError

if TYPE_CHECKING:
    import torch

#: 4-bit NormalFloat with its scales quantized too, computed in bfloat16 (Dettmers et al. 2023, "QLoRA", section 3).
NF4 = "nf4"


def quantized_options(device: torch.device) -> dict[str, Any]:
    """Return what `from_pretrained` takes to load linear layers in NF4, straight onto a device.

    Raises ModelError where bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise ModelError("dtype 'nf4' needs bitsandbytes: pip install 'promptkit[qlora]', or choose another dtype")
    import torch
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"dtype": torch.bfloat16, "quantization_config": config, "device_map": {"": str(device)}}


def is_quantized(network: Any) -> bool:
    """Return whether a network's linear layers hold 4 bits."""
    return bool(getattr(network, "is_loaded_in_4bit", False))

"""Fused layers have the outputs and the gradients of the layers they stand for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig

from promptkit.training.fused import fuse_blocks
from promptkit.training.lora import wrap
from promptkit.training.low_rank import FusedLinear, Together, multiply
from tests.helpers.training_fakes import model
from tests.training.test_train import settings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def adapted(architecture: str = "llama", dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A network with an adapter that does something, and norms that are not all ones."""
    base = model(architecture)
    base.network.to(dtype)
    network = wrap(base, settings(**changes))
    torch.manual_seed(5)
    for name, weight in network.named_parameters():
        if "lora_B" in name or "norm" in name:
            torch.nn.init.normal_(weight, 1.0 if "norm" in name else 0.0, 0.3)
    return network


def run(forward: Any, module: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Return the output, and the gradients of the input and of what the module trains."""
    x = x.detach().requires_grad_()
    module.zero_grad()
    out = forward(x)
    (out.float() * torch.linspace(-1, 2, out.numel()).view(out.shape)).sum().backward()
    return [out.detach(), x.grad, *(weight.grad.clone() for weight in module.parameters() if weight.grad is not None)]


def assert_same(module: torch.nn.Module, theirs: Any, x: torch.Tensor, count: int, **close: float) -> None:
    """Compare a module's forward and backward to those of another forward of it."""
    ours, expected = run(module.forward, module, x), run(theirs, module, x)
    assert len(ours) == len(expected) == count
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, **close)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_layer_equals_peft_s_own() -> None:
    """The fused operation is peft's layer, for its input's gradient too."""
    fused = next(module for module in adapted().modules() if isinstance(module, FusedLinear))
    assert_same(fused, super(FusedLinear, fused).forward, draw(2, 3, 32), 4)


def test_outputs_may_be_changed_in_place() -> None:
    """A network may add to what a fused layer, block or head gives, as Falcon does, and the gradients stay right."""
    network = adapted().get_base_model()
    layer = network.model.layers[0]
    for module in (layer.self_attn.q_proj, layer.self_attn.o_proj, layer.mlp, layer.input_layernorm, network.lm_head):
        x = draw(2, 3, 32).requires_grad_()

        def changed(x: torch.Tensor, module: Any = module) -> torch.Tensor:
            out = module(x)
            out += 1
            return out

        found, expected = (torch.autograd.grad(out.square().sum(), x)[0] for out in (changed(x), module(x) + 1))
        torch.testing.assert_close(found, expected)


def test_layer_in_bfloat16_is_close_to_peft_s_own() -> None:
    """In bfloat16 the low-rank product is computed in 16 bits; the adapter and its gradients stay in float32."""
    fused = next(module for module in adapted(dtype=torch.bfloat16).modules() if isinstance(module, FusedLinear))
    x = draw(2, 3, 32).bfloat16()
    assert_same(fused, super(FusedLinear, fused).forward, x, 4, atol=0.05, rtol=0.05)
    assert fused.lora_A["default"].weight.grad.dtype == torch.float32


def test_small_steps_of_an_adapter_are_seen_in_bfloat16() -> None:
    """What the weights of A, B differ by from their roundings to 16 bits is in the output and the input's gradient."""
    fused = next(module for module in adapted(dtype=torch.bfloat16).modules() if isinstance(module, FusedLinear))
    down, up = fused.lora_A["default"].weight, fused.lora_B["default"].weight
    x, signs = torch.ones(1, 1, 32).bfloat16().requires_grad_(), torch.tensor([1.0, -1.0]).repeat(16)
    torch.nn.init.zeros_(fused.get_base_layer().weight)
    step = 1e-4  # less than half of a step in 16 bits from weights that cancel one another out
    down.data[:] = 0.0625 * signs + step
    up.data[:] = 0.0625 * signs[:, None] + step
    out = fused(x)
    (to_x,) = torch.autograd.grad(out.sum(), x)
    narrow = 32 * step * fused.scale * down.shape[0]
    torch.testing.assert_close(out[0, 0].float(), narrow * up[:, 0], rtol=0.02, atol=0)
    torch.testing.assert_close(to_x[0, 0].float(), narrow * down[0], rtol=0.02, atol=0)


@pytest.mark.parametrize("name", ["mlp", "input_layernorm"])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_activation_equals_transformers_own(kind: str, name: str) -> None:
    """SwiGLU blocks and RMSNorms are replaced in networks that have them, and compute the same."""
    module = getattr(adapted(kind).get_base_model().model.layers[0], name)
    assert "forward" in vars(module)
    assert_same(module, type(module).forward.__get__(module), draw(2, 3, 32), 8 if name == "mlp" else 2)


def test_activation_in_bfloat16_is_close_to_transformers_own() -> None:
    """So they do in bfloat16, but for its rounding."""
    layer = adapted(dtype=torch.bfloat16).get_base_model().model.layers[0]
    for module, count in ((layer.mlp, 8), (layer.input_layernorm, 2)):
        theirs = type(module).forward.__get__(module)
        assert_same(module, theirs, draw(2, 3, 32).bfloat16(), count, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("width", [1, 1024, 1025, 1536, 2000])
def test_wide_product_is_the_product(width: int) -> None:
    """Computed a stretch of columns at a time or at once, whole stretches or not, each column is the same sum."""
    x, weight = draw(5, 7), draw(7, width)
    for given in (weight, weight.t().contiguous().t()):
        torch.testing.assert_close(multiply(x, given), x @ given)


@pytest.mark.parametrize("sizes", [(8, 1500), (1500, 8)])
def test_wide_layers_equal_peft_s_own(sizes: tuple[int, int]) -> None:
    """Layers with a bias that are wide, on either side, have peft's outputs and gradients, alone and together."""
    config = LoraConfig(r=2, init_lora_weights=False)
    parts = [torch.nn.Linear(*sizes).requires_grad_(False) for _ in "qk"]
    layers = torch.nn.ModuleList(FusedLinear(part, "default", config, r=2, lora_alpha=4) for part in parts)

    def ours(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([layer(x) for layer in layers], dim=-1)

    def theirs(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([super(FusedLinear, layer).forward(x) for layer in layers], dim=-1)

    expected = run(theirs, layers, draw(2, 3, sizes[0]))
    for fuse in (list, Together):
        fuse(layers)
        for one, other in zip(run(ours, layers, draw(2, 3, sizes[0])), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


def test_head_equals_transformers_own() -> None:
    """The head over the vocabulary is replaced, and computes the same, of two positions or of one."""
    head = adapted().get_base_model().lm_head
    assert "forward" in vars(head)
    for x in (draw(2, 3, 32), draw(1, 1, 32)):
        assert_same(head, type(head).forward.__get__(head), x, 2)


@pytest.mark.parametrize("changed", ["bias", "trained"])
def test_head_that_is_more_than_a_frozen_product_is_left_alone(changed: str) -> None:
    """One with a bias, or that is trained, keeps its own forward."""
    network = model().network
    head = torch.nn.Linear(32, network.config.vocab_size, bias=changed == "bias")
    network.set_output_embeddings(head.requires_grad_(changed == "trained"))
    fuse_blocks(network)
    assert "forward" not in vars(head)


def project(attention: Any, x: torch.Tensor, order: str = "qkv") -> torch.Tensor:
    """Return queries, keys and values, called for in some order, side by side."""
    found = {name: getattr(attention, f"{name}_proj")(x) for name in order}
    return torch.cat([found[name] for name in "qkv"], dim=-1)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_projections_that_run_together_equal_peft_s_own(kind: str) -> None:
    """Queries, keys and values come from one operation, whichever is called for first, with the gradients of three."""
    attention = adapted(kind).get_base_model().model.layers[0].self_attn
    layers = [attention.q_proj, attention.k_proj, attention.v_proj]
    assert layers[0].together.layers == layers

    def alone(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([super(FusedLinear, layer).forward(x) for layer in layers], dim=-1)

    expected = run(alone, attention, draw(2, 3, 32))
    for order in ("qkv", "vqk"):
        found = run(lambda x, order=order: project(attention, x, order), attention, draw(2, 3, 32))
        assert len(found) == len(expected) == 8
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_projection_that_is_called_on_other_states_runs_on_these() -> None:
    """What waits for a neighbour's turn is given for the very states it was made of, and once."""
    attention = adapted().get_base_model().model.layers[0].self_attn
    x, other = draw(1, 3, 32), draw(2, 3, 32)[1:]
    with torch.no_grad():
        attention.q_proj(x)
        torch.testing.assert_close(attention.k_proj(other), super(FusedLinear, attention.k_proj).forward(other))
        project(attention, x)
        attention.k_proj.lora_B["default"].weight += 1
        torch.testing.assert_close(attention.k_proj(x), super(FusedLinear, attention.k_proj).forward(x))


def test_queries_of_the_last_layer_run_apart() -> None:
    """They get fewer columns than its keys and values."""
    attention = adapted().get_base_model().model.layers[1].self_attn
    assert attention.q_proj.together is None
    assert attention.k_proj.together.layers == [attention.k_proj, attention.v_proj]


def test_what_only_looks_the_same_is_left_alone() -> None:
    """Gemma adds one to the weight of its norms and has another activation: both keep their own forward."""
    layer = adapted("gemma").get_base_model().model.layers[0]
    assert not {"forward"} & {*vars(layer.mlp), *vars(layer.input_layernorm)}


@pytest.mark.parametrize("changes", [{"dropout": 0.1}, {"targets": ("q_proj", "up_proj")}, {"kind": "dora"}])
def test_adapter_that_is_more_than_a_sum_is_not_fused(changes: dict[str, Any]) -> None:
    """With dropout, magnitudes, or layers without an adapter, blocks run as peft and transformers have them."""
    layer = adapted(**changes).get_base_model().model.layers[0]
    assert "forward" not in vars(layer.mlp)
    assert "forward" in vars(layer.input_layernorm)


def test_switched_off_adapter_is_the_base_model() -> None:
    """Fused blocks obey `disable_adapter`."""
    network, ids = adapted(), torch.tensor([[5, 6, 7]])
    with torch.no_grad(), network.disable_adapter():
        found = network(ids).logits
    base = model().network
    for name, weight in base.named_parameters():
        if "norm" in name:
            weight.data = network.get_base_model().get_parameter(name).data
    with torch.no_grad():
        torch.testing.assert_close(found, base(ids).logits)

"""Build a Llama network whose token vectors start from what a bag-of-words classifier learned."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from promptkit.models.recipe.corpus import FamilyPool

SPREAD = 0.08
"""Standard deviation of the token vectors at the start."""

SHARP, MATCH, COPY = 6.0, 3.0, 0.9
"""How strongly the attention that the network starts with looks back, matches, and writes what it finds."""


@dataclass(frozen=True, slots=True)
class NetworkSize:
    """The sizes of the network; heads have 64 dimensions and share one key and value head."""

    width: int = 192
    layers: int = 4
    hidden: int = 512
    window: int = 1_024
    attention: str = "sdpa"


def build_network(tokenizer: PreTrainedTokenizerFast, size: NetworkSize) -> LlamaForCausalLM:
    """A fresh network of this size: RMSNorm, rotary positions (base 10,000), tied head, float32."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        intermediate_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.width // 64,
        num_key_value_heads=1,
        max_position_embeddings=size.window,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation=size.attention,
    )
    network = LlamaForCausalLM(config)
    nn.init.normal_(network.get_input_embeddings().weight, std=SPREAD)
    return network


def start_circuits(network: LlamaForCausalLM, *, seed: int) -> None:
    """Start the first three layers' attention as one that looks up what stood beside the same words before.

    Learning from demonstrations whose label words mean nothing takes two steps of attention (the induction heads of
    Olsson et al. 2022), which small networks find late or, in training as short as this, never. Here they are there
    from the first step, faintly, and training makes of them what it needs. Heads of the first layer look about one
    and two tokens back, by the fast rotations of the position encoding and a direction that all token vectors are
    given in common, and write what they see into a subspace of its own. Heads of the next two match a token, or what
    that subspace says of it, with what stood before each earlier one, and copy what they find.

    Changes `network` in place: token vectors, and the attention of layers 0 to 2 (of as many as there are).
    """
    weight = network.get_input_embeddings().weight.data
    width, heads = weight.shape[1], network.config.hidden_size // 64
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(width, width, generator=generator))[0].T
    common, content, before = basis[0], basis[1:65], basis[65:129]
    weight -= torch.outer(weight @ common, common)
    weight += common * weight.std() * width**0.5
    near, wider = _rotating(0, 4), _rotating(4, 6)
    layers = [layer.self_attn for layer in network.model.layers[:3]]
    for number, attention in enumerate(layers):
        if number == 0:
            keys = torch.outer(near + wider, common)
            queries = [
                SHARP * torch.outer(_rotate(near, -1.0), common),
                SHARP * torch.outer(_rotate(wider, -1.5), common),
            ]
        else:
            keys, queries = MATCH * before, [MATCH * content, MATCH * before]
        attention.k_proj.weight.data += keys
        attention.v_proj.weight.data += COPY * content
        for head in range(min(2, heads)):
            rows = slice(64 * head, 64 * head + 64)
            attention.q_proj.weight.data[rows] += queries[head]
            attention.o_proj.weight.data[:, rows] += COPY * (before if number == 0 else content).T


def _rotating(first: int, count: int) -> torch.Tensor:
    """A unit vector (64,) over the `count` rotations of a head from the `first` on, the fastest being number 0."""
    vector = torch.zeros(64)
    vector[first : first + count] = count**-0.5
    return vector


def _rotate(vector: torch.Tensor, steps: float) -> torch.Tensor:
    """The vector (64,) as the position encoding turns it `steps` positions on."""
    angles = steps * 10_000.0 ** (-torch.arange(32) / 32)
    left, right = vector[:32], vector[32:]
    return torch.cat([left * angles.cos() - right * angles.sin(), right * angles.cos() + left * angles.sin()])


def warm_vectors(
    tokenizer: PreTrainedTokenizerFast, pools: Sequence[FamilyPool], width: int, *, seed: int, epochs: int = 5
) -> torch.Tensor:
    """Token vectors (vocabulary, width) that classify the pools' texts by their mean, scaled to the usual spread.

    One linear head per pool (from torch's global seed). A few epochs only, with half of the tokens dropped, since
    bags of words overfit fast.
    """
    generator = torch.Generator().manual_seed(seed)
    vectors = nn.EmbeddingBag(len(tokenizer), width, mode="mean")
    nn.init.normal_(vectors.weight, std=SPREAD, generator=generator)
    heads = nn.ModuleList(nn.Linear(width, len(pool.task.labels or ())) for pool in pools)
    optimizer = torch.optim.Adam([*vectors.parameters(), *heads.parameters()], lr=5e-3)
    encoded = [_encode_pool(tokenizer, pool) for pool in pools]
    for _ in range(epochs):
        for number, chosen in _shuffled_batches([len(labels) for _, labels in encoded], generator):
            texts, labels = encoded[number]
            bags = [_drop_half(texts[i], generator) for i in chosen.tolist()]
            offsets = torch.tensor([0, *(len(bag) for bag in bags[:-1])]).cumsum(0)
            loss = nn.functional.cross_entropy(heads[number](vectors(torch.cat(bags), offsets)), labels[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    learned = vectors.weight.detach()
    return learned * (SPREAD / learned.std())


def _encode_pool(tokenizer: PreTrainedTokenizerFast, pool: FamilyPool) -> tuple[list[torch.Tensor], torch.Tensor]:
    texts = [" " + str(record.fields["text"]) for record in pool.records]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [torch.tensor(row) for row in ids], torch.tensor([record.label for record in pool.records])


def _shuffled_batches(
    sizes: Sequence[int], generator: torch.Generator, rows: int = 192
) -> list[tuple[int, torch.Tensor]]:
    batches = [
        (number, chosen)
        for number, size in enumerate(sizes)
        for chosen in torch.chunk(torch.randperm(size, generator=generator), -(-size // rows))
    ]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def _drop_half(ids: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    kept = ids[torch.rand(len(ids), generator=generator) < 0.5]
    return kept if len(kept) else ids

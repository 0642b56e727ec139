"""What loading reads is in the folder, whole, no pickle, and in the hash; anything else is one line that names it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BertConfig, T5Config

from promptkit.adapters.loading import load_model
from promptkit.cli import cli
from promptkit.cli.verbs.row_file import score_file
from promptkit.cli.verbs.training import train_source
from promptkit.errors import ModelError, PromptkitWarning
from promptkit.experiments.compare import compare
from promptkit.experiments.study import study
from promptkit.models import load_encoder
from promptkit.models.checkpoint import list_files
from tests.helpers.naive import network, tokenizer

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model as transformers saves it, its weights in one file."""
    folder = tmp_path_factory.mktemp("models") / "small"
    network("llama", len(tokenizer())).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    """A copy of the small model that a test may spoil."""
    return Path(shutil.copytree(plain, tmp_path / "small"))


@pytest.fixture
def sharded(folder: Path) -> Path:
    """The same, its weights in two files and an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    places = {name: f"part-{1 + (at % 2)}.safetensors" for at, name in enumerate(names)}
    for shard in set(places.values()):
        save_file({name: weights[name] for name in names if places[name] == shard}, folder / shard, {"format": "pt"})
    write(folder / INDEX, {"metadata": {}, "weight_map": places})
    return folder


def write(path: Path, value: Any) -> None:
    """Write a value as JSON."""
    path.write_text(json.dumps(value))


def edit(path: Path, **changes: Any) -> None:
    """Change values of a JSON object."""
    write(path, {**json.loads(path.read_text()), **changes})


def name_shard(folder: Path, name: Any) -> None:
    """Let the index name another file for its first tensor."""
    places = json.loads((folder / INDEX).read_text())["weight_map"]
    edit(folder / INDEX, weight_map={**places, min(places): name})


def refused(folder: Path | str) -> str:
    """Return the one line that loading a folder ends in."""
    with pytest.raises(ModelError) as caught:
        load_model(str(folder), device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sharded_model_is_the_same_and_every_shard_counts(plain: Path, sharded: Path) -> None:
    """An index gives the weights of its files; a byte of any of them, in a folder below too, makes another model."""
    loaded = load_model(str(sharded), device="cpu")
    whole = load_model(str(plain), device="cpu")
    for ours, theirs in zip(loaded.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    (sharded / "below").mkdir()
    (sharded / "part-1.safetensors").rename(sharded / "below" / "part.safetensors")
    places = json.loads((sharded / INDEX).read_text())["weight_map"]
    moved = {name: "below/part.safetensors" if "1" in place else place for name, place in places.items()}
    edit(sharded / INDEX, weight_map=moved)
    assert "below/part.safetensors" in list_files(sharded)
    before = load_model(str(sharded), device="cpu").hash
    content = bytearray((sharded / "below/part.safetensors").read_bytes())
    content[-1] ^= 1
    (sharded / "below/part.safetensors").write_bytes(content)
    assert load_model(str(sharded), device="cpu").hash != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pytorch_model.bin", r"'pytorch_model.bin': expected a \*\.safetensors file, for a pickle can run any code"),
        ("../x.safetensors", "'../x.safetensors': expected a file in the model's folder"),
        ("below/../../x.safetensors", "'below/../../x.safetensors': expected a file in the model's folder"),
        ("/x.safetensors", "'/x.safetensors': expected a file in the model's folder"),
        ("gone.safetensors", "'gone.safetensors', which is not there"),
        (3, "3: expected a"),
        (None, "None: expected a"),
    ],
)
def test_index_names_files_of_the_folder(sharded: Path, name: Any, message: str) -> None:
    """An index that names a pickle, a file elsewhere or none is refused, and nothing is loaded."""
    name_shard(sharded, name)
    assert re.search(rf"{INDEX}: 'lm_head.weight' is in .*{message}", refused(sharded))


@pytest.mark.parametrize("index", [[], {}, {"weight_map": 3}, {"weight_map": {}}, {"weight_map": {"a": []}}, "x"])
def test_malformed_index_is_one_line(sharded: Path, index: Any) -> None:
    """Whatever an index holds instead, its file is named."""
    write(sharded / INDEX, index)
    assert refused(sharded).startswith(f"{sharded / INDEX}: ")


def test_tensor_that_no_shard_holds_is_named(sharded: Path) -> None:
    """An index that promises a tensor which is not there does not belong to its files."""
    places = json.loads((sharded / INDEX).read_text())["weight_map"]
    edit(sharded / INDEX, weight_map={**places, "model.ghost": "part-1.safetensors"})
    assert "'model.ghost' is not in part-1.safetensors" in refused(sharded)


def link(name: str) -> Callable[[Path], None]:
    """Return what puts a link to a copy outside in the place of a file."""

    def spoil(folder: Path) -> None:
        outside = folder.parent / "outside"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return spoil


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"])
def test_link_out_of_the_folder_is_refused(folder: Path, name: str) -> None:
    """A file that is a link to elsewhere may change without the folder: copy it."""
    link(name)(folder)
    assert f"{name}: a link to " in (message := refused(folder))
    assert "outside of the model's folder" in message


def test_link_to_nothing_is_named(folder: Path) -> None:
    """A link that leads nowhere, or to itself, is no missing file."""
    (folder / "generation_config.json").unlink()
    (folder / "generation_config.json").symlink_to("generation_config.json")
    assert "generation_config.json: a link to" in refused(folder)


def test_cache_of_the_hub_links_to_its_own_blobs(folder: Path, tmp_path: Path) -> None:
    """A snapshot is loaded, whose files are links; one to somewhere else is none of it."""
    snapshot = tmp_path / "hub" / "models--a--b" / "snapshots" / "0"
    blobs = snapshot.parents[1] / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in folder.iterdir():
        shutil.copy(path, blobs / path.name)
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    assert load_model(str(snapshot), device="cpu").hash == load_model(str(folder), device="cpu").hash
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(folder / "config.json")
    assert "config.json: a link to" in refused(snapshot)


def pointer(name: str) -> Callable[[Path], None]:
    """Return what puts a pointer of git-lfs in the place of a file."""
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
    return lambda folder: (folder / name).write_text(text) and None


def cut(folder: Path) -> None:
    """Leave out the end of the weights."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def gguf_only(folder: Path) -> None:
    """Leave a GGUF file alone."""
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "net.gguf").write_bytes(b"GGUF\x03\0\0\0")


def bring(name: str, **entries: Any) -> Callable[[Path], None]:
    """Return what puts entries into one of the JSON files."""
    return lambda folder: edit(folder / name, **entries)


def put(name: str, text: str) -> Callable[[Path], None]:
    """Return what writes a file."""
    return lambda folder: (folder / name).write_text(text) and None


def outside_vocabulary(folder: Path) -> None:
    """Let the tokenizer's configuration name a file elsewhere."""
    (folder.parent / "vocab.json").write_text("{}")
    edit(folder / "tokenizer_config.json", vocab_file=str(folder.parent / "vocab.json"))


def named_pickle(folder: Path) -> None:
    """Let the configuration name the weights."""
    (folder / "adapter_model.bin").write_bytes(b"")
    edit(folder / "config.json", transformers_weights="adapter_model.bin")


def test_weights_that_the_configuration_names_count(folder: Path, tmp_path: Path) -> None:
    """Weights below the folder that config.json names are in the hash; a link out of it is refused there too."""
    (folder / "below").mkdir()
    named = shutil.move(folder / "model.safetensors", folder / "below/net.safetensors")
    edit(folder / "config.json", transformers_weights="below/net.safetensors")
    before = load_model(str(folder), device="cpu").hash
    save_file({name: weight + 1 for name, weight in load_file(named).items()}, named, {"format": "pt"})
    assert load_model(str(folder), device="cpu").hash != before
    (folder / "below/net.safetensors").symlink_to(shutil.move(named, tmp_path / "other.safetensors"))
    assert "outside of the model's folder" in refused(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (pointer("model.safetensors"), "small/model.safetensors: a pointer of git-lfs, not the file itself"),
        (pointer("tokenizer.json"), "small/tokenizer.json: a pointer of git-lfs"),
        (pointer("config.json"), "small/config.json: a pointer of git-lfs"),
        (cut, "small/model.safetensors: a damaged safetensors file"),
        (gguf_only, "small/net.gguf: a GGUF file, which promptkit does not read yet"),
        (outside_vocabulary, "tokenizer_config.json: vocab_file is .*outside of the model's folder"),
        (named_pickle, "config.json: transformers_weights is 'adapter_model.bin': expected a"),
        (put("adapter_config.json", "{}"), "small: a whole model and an adapter"),
        (put("generation_config.json", "[1]"), "small/generation_config.json: a JSON object is expected"),
        (put("tokenizer_config.json", "{" * 10_000), "small/tokenizer_config.json: "),
        (put("config.json", '{"a": ' + "9" * 5000 + "}"), "small/config.json: a number has too many digits"),
        (bring("config.json", num_hidden_layers=10**9), r"num_hidden_layers is 1000000000, but the weights hold \d+"),
        (bring("config.json", vocab_size=10**12), "small: the model cannot be read"),
        (bring("config.json", num_hidden_layers=0), r"num_hidden_layers is 0, but the weights hold \d+"),
        (bring("config.json", num_hidden_layers="two"), "small: the configuration cannot be read: .*num_hidden_layers"),
        (
            bring("config.json", hidden_act="none such"),
            "the model cannot be read: nothing is called 'none such'",
        ),
        (bring("config.json", hidden_size="wide"), "small: the configuration cannot be read: .*hidden_size"),
        (bring("config.json", hidden_size=0), "small: the "),
        (bring("config.json", configuration_files=["config.4.0.0.json"]), "other configurations by release"),
        (bring("config.json", architectures=["LlamaForSequenceClassification"]), "whose head is no language model's"),
        (bring("tokenizer_config.json", model_max_length="long"), "small: the tokenizer cannot be read"),
    ],
)
def test_what_a_folder_holds_instead_is_one_line(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    """Pointers, cut files, other formats, configurations that lie: the file is named, with the way out."""
    spoil(folder)
    assert re.search(message, refused(folder))


def test_gguf_file_is_named_for_what_it_is(tmp_path: Path) -> None:
    """Given the file itself or its folder, the answer is the same, whatever the file's name."""
    (tmp_path / "net.bin").write_bytes(b"GGUF\x03\0\0\0")
    assert "net.bin: a GGUF file, which promptkit does not read yet" in refused(tmp_path / "net.bin")


@pytest.mark.parametrize("name", ["~nobody-has-this-name/m", "x" * 300, "a\0b"])
def test_name_that_no_folder_can_have_is_one_line(name: str) -> None:
    """A home of nobody, a name too long and a NUL are errors like any other."""
    with pytest.raises(ModelError, match="model"):
        load_model(name)


def test_code_that_a_model_brings_needs_the_flag(folder: Path) -> None:
    """A model of its own kind says which flag runs its code; code from another repository is never run."""
    edit(folder / "config.json", model_type="mynet", auto_map={"AutoConfig": "conf.MyConfig"})
    assert "give --trust-remote-code, or load_model(…, trust_remote_code=True)" in refused(folder)
    edit(folder / "config.json", auto_map={"AutoConfig": "someone/else--conf.MyConfig"})
    with pytest.raises(ModelError, match=r"its code is in another repository \(someone/else--conf.MyConfig\)"):
        load_model(str(folder), trust_remote_code=True)


@pytest.mark.parametrize("verb", ["compare", "study", "score", "train", "show", "predict", "merge"])
def test_every_verb_with_a_model_has_the_flag(verb: str) -> None:
    """Whatever loads a model can be told to trust its code; nothing does so by itself."""
    [option] = [each for each in cli.commands[verb].params if "--trust-remote-code" in each.opts]
    assert isinstance(option, click.Option)
    assert option.is_flag


def bring_code(folder: Path) -> None:
    """Turn a model into one of a kind of its own, with the code for it."""
    (folder / "conf.py").write_text(
        "from transformers import LlamaConfig\nclass MyConfig(LlamaConfig):\n    model_type = 'mynet'\n"
    )
    (folder / "model.py").write_text(
        "from transformers import LlamaForCausalLM\nfrom .conf import MyConfig\n"
        "class MyModel(LlamaForCausalLM):\n    config_class = MyConfig\n"
    )
    places = {"AutoConfig": "conf.MyConfig", "AutoModelForCausalLM": "model.MyModel"}
    edit(folder / "config.json", model_type="mynet", architectures=["MyModel"], auto_map=places)


def test_trusted_code_is_run_and_counts(folder: Path) -> None:
    """With the flag a model's own code runs, and it is part of the hash."""
    bring_code(folder)
    loaded = load_model(str(folder), device="cpu", trust_remote_code=True)
    assert type(loaded.network).__name__ == "MyModel"
    (folder / "model.py").write_text((folder / "model.py").read_text() + "# changed\n")
    assert load_model(str(folder), device="cpu", trust_remote_code=True).hash != loaded.hash


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_flag_reaches_the_model_in_every_way_to_use_it(folder: Path, tmp_path: Path) -> None:
    """Rows, training, comparisons and studies, its workers too, run a model's code with the flag, and only with it."""
    bring_code(folder)
    rows, pairs = tmp_path / "rows.jsonl", tmp_path / "pairs.jsonl"
    rows.write_text('{"prompt": "the soup", "choices": [" a", " b"]}\n')
    pairs.write_text('{"prompt": "the soup", "completion": " a"}\n')
    few: dict[str, Any] = {"limit": 1, "device": "cpu", "out": tmp_path / "run"}
    given: dict[str, Any] = {"model": str(folder), "trust_remote_code": True}
    with pytest.raises(ModelError, match="give --trust-remote-code"):
        score_file(str(rows), model=str(folder), device="cpu")
    assert score_file(str(rows), device="cpu", **given)["rows"]
    assert train_source(str(pairs), device="cpu", out=str(tmp_path / "adapter"), epochs=1, **given)["rows"] == 1
    with pytest.raises(ModelError, match="give --trust-remote-code"):
        load_model(str(tmp_path / "adapter"), device="cpu")
    assert load_model(str(tmp_path / "adapter"), device="cpu", trust_remote_code=True).has_adapter
    assert compare("reviews", methods=("zero-shot",), templates=("sentiment/plain",), **few, **given)["cells"]
    axes: dict[str, Any] = {"methods": ("zero-shot",), "templates": ("sentiment/plain",), "workers": 2}
    assert study("reviews", **axes, **{**few, "out": tmp_path / "grid"}, **given)["cells"]


@pytest.mark.parametrize("config", [T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)])
def test_model_of_another_kind_is_refused(folder: Path, config: Any) -> None:
    """An encoder-decoder's configuration is no causal language model's."""
    config.save_pretrained(folder)
    assert "a T5Config is no configuration of a language model that continues text" in refused(folder)


def test_classifier_is_no_language_model(folder: Path) -> None:
    """A classifier's folder, whose head would be lost, is refused also where its embeddings make a head."""
    edit(folder / "config.json", tie_word_embeddings=True)
    weights = AutoModelForCausalLM.from_pretrained(folder).config
    AutoModelForSequenceClassification.from_config(weights).save_pretrained(folder)
    assert "the weights are of a LlamaForSequenceClassification, whose head" in refused(folder)


def test_masked_model_is_refused(folder: Path) -> None:
    """BERT fills gaps and continues no text."""
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(tokenizer()), architectures=["BertForMaskedLM"], **shape)
    config.save_pretrained(folder)
    assert "the weights are of a BertForMaskedLM" in refused(folder)


def test_tensors_without_a_place_are_told(folder: Path) -> None:
    """Weights beyond those of the network are left out with one line of warning."""
    path = folder / "model.safetensors"
    save_file({**load_file(path), "model.ghost": torch.zeros(1)}, path, {"format": "pt"})
    with pytest.warns(PromptkitWarning, match=r"1 tensors of the weights have no place in a .*, such as model.ghost"):
        load_model(str(folder), device="cpu")


def test_templates_below_the_folder_count(folder: Path) -> None:
    """Chat templates of other names, which transformers reads too, are part of the hash."""
    before = load_model(str(folder), device="cpu").hash
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("{{ messages }}")
    assert load_model(str(folder), device="cpu").hash != before


def test_encoder_alone_checks_its_files(folder: Path) -> None:
    """The tokenizer of a folder is read under the same rules without its weights."""
    link("tokenizer.json")(folder)
    with pytest.raises(ModelError, match=r"tokenizer\.json: a link to"):
        load_encoder(str(folder))


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_file_that_may_not_be_read_is_named(folder: Path) -> None:
    """Without permission the file is named."""
    (folder / "config.json").chmod(0)
    assert "config.json" in refused(folder)

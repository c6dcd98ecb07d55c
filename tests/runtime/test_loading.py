"""A saved model loads as it was saved, and one that is incomplete or damaged is refused in one line."""

import json

import pytest
import torch
from huggingface_hub import errors as hub
from safetensors.torch import load_file, save_file

from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.hub.source import resolve
from weight_edit.runtime.forward import next_token_logprobs
from weight_edit.runtime.loading import load


@pytest.fixture
def folder(small_model, tmp_path):
    model = small_model("llama")
    model.model.save_pretrained(tmp_path / "saved")
    model.tokenizer.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_saved_model_comes_back(small_model, folder):
    model = load(folder, dtype="float32")
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)
    assert not model.model.training
    assert model.source.path == folder
    assert model.source.revision is None
    names = [writer.weight for writer in small_model("llama").anatomy.writers]
    assert [writer.weight for writer in model.anatomy.writers] == names
    sequences = [[5, 6, 7], [8]]
    assert torch.equal(next_token_logprobs(model, sequences), next_token_logprobs(small_model("llama"), sequences))


def test_dtypes(folder):
    assert load(folder).dtype == torch.float32
    assert load(folder, dtype="bfloat16").dtype == torch.bfloat16
    with pytest.raises(UsageError, match="float12"):
        load(folder, dtype="float12")


def test_devices(folder):
    with pytest.raises(UsageError, match="'toaster' is not known"):
        load(folder, device="toaster")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no CUDA device"):
            load(folder, device="cuda")


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nothing", "~/nothing-here", "a/b/c", "a\\b"])
def test_a_path_that_does_not_exist_is_not_looked_up_on_the_hub(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: pytest.fail("asked the Hub"))
    with pytest.raises(UsageError, match="there is no folder"):
        resolve(name)


def test_folders_that_are_not_models(tmp_path, folder):
    with pytest.raises(UsageError, match=r"no config\.json"):
        resolve(tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        resolve(folder / "config.json")
    with pytest.raises(UsageError, match="drop the revision main"):
        resolve(folder, revision="main")


class Response:
    status_code, headers, request = 404, {}, None


HUB_ERRORS = [
    (hub.GatedRepoError("no", response=Response()), "gated: accept its terms"),
    (hub.RepositoryNotFoundError("no", response=Response()), "no Hub repository org/model"),
    (hub.RevisionNotFoundError("no", response=Response()), "no revision v9"),
    (hub.LocalEntryNotFoundError("no"), "the Hub cannot be reached"),
    (hub.OfflineModeIsEnabled("no"), "the Hub cannot be reached"),
    (hub.HFValidationError("no"), "neither a folder nor a Hub id"),
    (
        hub.HfHubHTTPError("500 server\nmore", response=Response()),
        "refused org/model at revision v9: 500 server;",
    ),
    (OSError(28, "No space left on device"), "No space left"),
]


@pytest.mark.parametrize(("error", "words"), HUB_ERRORS, ids=[type(error).__name__ for error, _ in HUB_ERRORS])
def test_what_the_hub_says_becomes_one_line(error, words, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(UsageError, match=words) as caught:
        resolve("org/model", revision="v9")
    assert "\n" not in str(caught.value)


def test_no_tokenizer(folder):
    for path in folder.glob("token*"):
        path.unlink()
    with pytest.raises(UsageError, match="has no tokenizer"):
        load(folder)


def test_broken_and_unknown_configs(folder):
    change_config(folder, model_type="nonsense")
    with pytest.raises(UnsupportedError, match="does not know this model_type"):
        load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UsageError, match=r"config\.json cannot be read"):
        load(folder)


def test_remote_code_is_not_run(folder):
    (folder / "code.py").write_text("raise SystemExit('ran')")
    change_config(folder, model_type="own", auto_map={"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"})
    with pytest.raises(UnsupportedError, match="not run unless you pass `trust_remote_code=True`"):
        load(folder)


def edit_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_missing_tensor_is_an_error_and_not_random_numbers(folder):
    edit_tensors(folder, lambda tensors: tensors.pop("model.layers.1.self_attn.o_proj.weight"))
    with pytest.raises(UsageError, match=r"lacks 1 tensors .* model\.layers\.1\.self_attn\.o_proj\.weight"):
        load(folder)


def test_a_tensor_of_another_shape(folder):
    edit_tensors(folder, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(3)}))
    with pytest.raises(UsageError, match="other shapes"):
        load(folder)


def test_weights_that_are_missing_pickled_or_damaged(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(b"short")
    with pytest.raises(UsageError, match="cannot be loaded"):
        load(folder)
    weights.unlink()
    with pytest.raises(UsageError, match=r"no file named model\.safetensors"):
        load(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsupportedError, match="convert it to safetensors"):
        load(folder)

"""Prefetching weights from a hub that stands in for the real one: a server on this machine, the real client."""

import hashlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import timm
import torch
from safetensors.torch import save

from alignet.backbones import hub
from tests.makers.ready import Ready

MODEL, COMMIT = "test_vit.r160_in1k", "a" * 40
OPTIONS = [
    "student.library=timm", f"student.architecture={MODEL}", "student.weights=hub", "student.model_args={}",
    "student.image_size=0", "pretrain.student.architecture=x", "pretrain.student.model_args={}",
]  # fmt: skip


# nothing that imports the hub's client, which reads its environment when it is imported
def weights() -> bytes:
    """A state dict of the model, which no pretrained one equals."""
    torch.manual_seed(5)
    return save({name: value.clone() for name, value in timm.create_model(MODEL).state_dict().items()})


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as its client needs: one file of weights, or `files` of a repository."""

    payload, listed = b"", ""
    files: dict[str, bytes] = {}  # noqa: RUF012

    def do_GET(self):
        if self.files:
            self.of_repository()
        elif self.path.startswith("/api/models/"):
            held = {"sha256": self.listed, "size": len(self.payload), "pointerSize": 1}
            sibling = {
                "rfilename": "model.safetensors",
                "size": len(self.payload),
                "blobId": "b",
                "lfs": held,
            }
            self.answer(json.dumps({"id": "x", "sha": COMMIT, "siblings": [sibling]}).encode())
        elif self.path.endswith("/model.safetensors"):
            self.answer(self.payload)
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def of_repository(self):
        name = self.path.rpartition("/")[2]
        if self.path.startswith("/api/models/"):
            siblings = [{"rfilename": one, "size": len(text)} for one, text in self.files.items()]
            self.answer(json.dumps({"id": "x", "sha": COMMIT, "siblings": siblings}).encode())
        elif name in self.files:
            self.answer(self.files[name])
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def answer(self, body):
        self.send_response(200)
        digest = hashlib.sha256(body).hexdigest()
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT, "Content-Length": str(len(body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """Environment of a process that meets this hub, with a cache of its own."""
    Hub.payload = weights()
    Hub.listed = hashlib.sha256(Hub.payload).hexdigest()
    found = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield {
        "HF_ENDPOINT": f"http://127.0.0.1:{found.server_port}", "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
    }  # fmt: skip
    found.shutdown()


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """What runs command lines in new processes; without huggingface_hub, so that each reads its environment."""
    with Ready(tmp_path_factory.mktemp("said"), ["tests.makers.composed", "torchvision"]) as one:
        yield one


@pytest.fixture
def prefetch(ready):
    """The command, in an environment."""
    probe = ready.run(program="import sys; sys.exit('huggingface_hub' in sys.modules)")
    assert probe.returncode == 0  # so that it reads the environment

    def run(environment, *more):
        if more[:1] == ("-c",):
            return ready.run(program=more[1], environment=environment)
        return ready.run("alignet.stages.prefetch", *OPTIONS, *more, environment=environment)

    return run


def test_weights_are_listed_then_downloaded_then_found_without_network(server, prefetch, tmp_path):
    told = prefetch(server)
    assert told.returncode == 0, told.stderr
    assert f"missing  timm/{MODEL}/model.safetensors" in told.stdout
    assert Hub.listed in told.stdout
    assert "licence:" in told.stdout
    assert "add runtime.download=true" in told.stdout
    assert not list((tmp_path / "hf").rglob("model.safetensors"))  # it was not asked to

    done = prefetch(server, "runtime.download=true")
    assert done.returncode == 0, done.stderr
    assert f"sha256 {Hub.listed}" in done.stdout
    offline = server | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    again = prefetch(offline, "runtime.download=true")
    assert "everything is here" in again.stdout, again.stderr
    assert "  here     timm/" in again.stdout

    program = (
        f"import timm, sys; m = timm.create_model({MODEL!r}, pretrained=True); from safetensors.torch import save; "
        "import hashlib; print(hashlib.sha256(save({k: v.clone() for k, v in m.state_dict().items()})).hexdigest())"
    )
    loaded = prefetch(offline, "-c", program)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split()[-1] == Hub.listed


def test_parts_and_optional_files_count(server, prefetch, tmp_path, monkeypatch):
    """A download that ended early is not taken for a whole one: not by its index, and not by the weights alone."""
    parts = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = {"weight_map": {"a": parts[0], "b": parts[1], "c": parts[0]}}
    texts = {"config.json": b"{}", "preprocessor_config.json": b"{ }", hub.INDEX: json.dumps(index).encode()}
    tokens = {"tokenizer.json": b"{  }"}
    monkeypatch.setattr(Hub, "files", texts | dict.fromkeys(parts, b"x") | tokens)
    options = ["student.library=transformers", "student.architecture=org/net"]
    offline = server | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    assert "6 files missing" in prefetch(server, *options).stdout

    done = prefetch(server, *options, "runtime.download=true")
    assert "everything is here now" in done.stdout, done.stderr
    again = prefetch(offline, *options)
    assert "everything is here:" in again.stdout, again.stderr  # that it has no spiece.model is known
    assert again.stdout.count("  here  ") == 6

    (snapshot,) = (tmp_path / "hf").rglob(f"snapshots/{COMMIT}")
    (snapshot / parts[1]).unlink()
    told = prefetch(offline, *options)
    assert told.returncode == 1
    assert f"not here org/net: {parts[1]}" in told.stdout
    told = prefetch(server, *options)
    assert f"missing  org/net/{parts[1]}" in told.stdout
    assert "1 files missing" in told.stdout

    (snapshot / "tokenizer.json").unlink()
    assert "2 files missing" in prefetch(server, *options).stdout
    assert "everything is here now" in prefetch(server, *options, "runtime.download=true").stdout
    (snapshot / "tokenizer.json").unlink()
    told = prefetch(offline, *options)
    assert told.returncode == 0
    assert "unknown  org/net/tokenizer.json" in told.stdout
    assert "everything is here" not in told.stdout
    (snapshot / hub.INDEX).unlink()
    (snapshot / hub.INDEX).write_text("{}")
    assert "expected an index of safetensors files" in prefetch(offline, *options).stderr


def test_a_file_that_arrives_changed_is_refused(server, prefetch):
    Hub.listed = "0" * 64
    answer = prefetch(server, "runtime.download=true")
    assert answer.returncode == 1
    assert "expected the sha256 0000" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "expected an answer of the hub"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set: unset it"),
    ],
)
def test_without_network_there_is_one_message(server, prefetch, changes, words):
    answer = prefetch(server | changes)
    assert answer.returncode == 1
    (line,) = [line for line in answer.stderr.splitlines() if line.startswith("error:")]
    assert words in line
    assert "Run prefetch on a machine with network" in line
    assert "Traceback" not in answer.stderr


def test_a_configuration_without_hub_weights_needs_nothing():
    command = [sys.executable, "-m", "alignet.stages.prefetch"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "nothing to download" in answer.stdout


def test_each_library_names_its_files():
    (one,) = hub.wanted("timm", "vit_base_patch16_224.augreg_in1k")
    assert (one.repo, one.files) == ("timm/vit_base_patch16_224.augreg_in1k", (hub.TIMM,))
    image, tokens = hub.wanted("open_clip", "ViT-B-16-SigLIP", "webli")
    assert (image.repo, image.files) == ("timm/ViT-B-16-SigLIP", (hub.OPEN_CLIP,))
    assert tokens.files == (("tokenizer_config.json",),)
    (openai,) = hub.wanted("open_clip", "ViT-B-16", "openai")
    assert openai.repo == "timm/vit_base_patch16_clip_224.openai"
    (one,) = hub.wanted("transformers", "facebook/dinov2-base", "main")
    assert one.repo == "facebook/dinov2-base"
    assert one.revision == "main"
    for arguments, message in (
        (("timm", "vit_of_nobody"), "expected a timm model with weights"),
        (("open_clip", "ViT-B-16", "nobody"), "its tags: openai"),
        (("pixels", ""), "expected a library out of timm, open_clip, transformers"),
    ):
        with pytest.raises(ValueError, match=message):
            hub.wanted(*arguments)

"""Data sets that other programs write are read as they are: the same losses, to the last bit, as on the same documents
prepared by lighthouse-prepare."""

import importlib.util
import json
import subprocess
import sys

import pytest
from prepare_corpora import END, byte_level_bpe, json_lines, run, texts, write
from trained_run import KEYS

datatrove = pytest.importorskip("datatrove")
from datatrove.data import Document  # noqa: E402
from datatrove.pipeline.tokens import DocumentTokenizer  # noqa: E402
from datatrove.pipeline.tokens.megatron_tokenizer import MegatronDocumentTokenizer  # noqa: E402

STEPS = {"training.steps": 4, "training.lighthouse_steps": 2, "training.batch_size": 1, "training.threads": 1,
         "validation.interval": 0, "logging.sample_tokens": 0, "data.packing": "documents"}
DOCUMENTS = texts(60, seed=1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    byte_level_bpe().save(str(path))
    return path


@pytest.fixture(scope="module")
def losses(lighthouse, tmp_path_factory):
    def train(path, **changed):
        folder = tmp_path_factory.mktemp("run")
        options = KEYS | STEPS | {"data.path": path, "model.vocab_size": 400, "logging.run_dir": folder / "run"} | changed
        words = [str(text) for key, value in options.items() for text in (f"--{key}", value)]
        result = subprocess.run([lighthouse, "train", *words], capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        return [json.loads(line)["loss"] for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return train


@pytest.fixture(scope="module")
def ours(losses, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours")
    write(folder / "a.jsonl", json_lines(DOCUMENTS))
    result = run(folder / "a.jsonl", "--tokenizer", tokenizer, "--output", folder / "tokens", "--validation", 0,
                 "--processes", 1)
    assert result.returncode == 0, result.stderr
    return losses(folder / "tokens" / "train")


def write_with(step, documents, rank=0):
    step.run(iter(Document(text=text, id=str(number)) for number, text in enumerate(documents)), rank=rank)


def test_megatron_by_datatrove(ours, losses, tokenizer, tmp_path):
    write_with(MegatronDocumentTokenizer(output_folder=str(tmp_path), tokenizer_name_or_path=str(tokenizer), eos_token=END),
               DOCUMENTS)
    [index] = tmp_path.glob("*.idx")
    assert len(ours) == 4
    assert losses(index.with_suffix("")) == ours


MEGATRON_CORE = """
import json, sys
import numpy, torch
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
for name in ("uint16", "int32"):
    builder = IndexedDatasetBuilder(f"{name}.bin", dtype=getattr(numpy, name))
    for document in json.loads(sys.argv[1]):
        builder.add_document(torch.tensor(document), [len(document)])
    builder.finalize(f"{name}.idx")
"""


@pytest.mark.skipif(not importlib.util.find_spec("megatron"), reason="megatron-core is not installed")
def test_megatron_by_megatron_core(ours, losses, tokenizer, tmp_path):
    """In a process of its own: it imports much."""
    encode = byte_level_bpe()
    documents = [[*encode.encode(text).ids, encode.token_to_id(END)] for text in DOCUMENTS]
    subprocess.run([sys.executable, "-W", "ignore", "-c", MEGATRON_CORE, json.dumps(documents)], cwd=tmp_path, check=True, timeout=300)
    for name in ("uint16", "int32"):
        assert losses(tmp_path / name) == ours


@pytest.mark.parametrize("ranks", [1, 3])
def test_datatrove_for_nanotron(ours, losses, tokenizer, tmp_path, ranks):
    """A rank writes a file; together they are one corpus."""
    share = len(DOCUMENTS) // ranks
    for rank in range(ranks):
        step = DocumentTokenizer(output_folder=str(tmp_path), tokenizer_name_or_path=str(tokenizer), eos_token=END,
                                 shuffle_documents=False)
        write_with(step, DOCUMENTS[rank * share:(rank + 1) * share], rank)
    files = sorted(tmp_path.glob("*.ds"))
    assert len(files) == ranks
    assert losses(tmp_path) == ours
    if ranks == 1:
        assert losses(files[0], **{"data.format": "datatrove"}) == ours

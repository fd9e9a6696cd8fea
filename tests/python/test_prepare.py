"""lighthouse-prepare: what it writes, in whatever number of processes and however often it is killed."""

import fcntl
import hashlib
import io
import json
import os
import pty
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

import numpy as np
import pytest
from prepare_corpora import (END, arrow, byte_level_bpe, command, folder_bytes, json_lines, read_documents, run, texts, tokenizers,
                             write, write_mixed, write_table)

from lighthouse_prepare.__main__ import main
from lighthouse_prepare.reader import Reading, read_sources
from lighthouse_prepare.sources import list_sources
from lighthouse_prepare.statistics import length_statistics
from lighthouse_prepare.tokenizer import load_tokenizer


def prepare(*arguments, **options):
    options = {"processes": 1} | options
    given = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", *(
        [] if value is True else value if isinstance(value, list) else [value]))]
    return main([str(word) for word in [*arguments, *given]])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    byte_level_bpe().save(str(path))
    return path


def expected(tokenizer, documents, share=0.0):
    """({split: [tokens]}) by the tokenizer's own encode."""
    encode = tokenizers.Tokenizer.from_file(str(tokenizer))
    end = encode.token_to_id(END)
    splits = {"train": [], "validation": []}
    for text in documents:
        hashed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        ids = encode.encode(text, add_special_tokens=False).ids
        splits["validation" if hashed < share * 2**64 else "train"].append([*ids, end])
    return splits


def assert_documents(prefix, tokens):
    found = read_documents(prefix)
    assert len(found) == len(tokens)
    for position, (ours, theirs) in enumerate(zip(found, tokens)):
        assert ours.tolist() == theirs, position


# ---- what is written ------------------------------------------------------------------------------------------------

def test_every_kind_of_file_in_order(tmp_path, tokenizer, capsys):
    documents = write_mixed(tmp_path / "corpus")
    assert prepare(tmp_path / "corpus", tokenizer=tokenizer, output=tmp_path / "out", validation=0.2) == 0
    splits = expected(tokenizer, documents, 0.2)
    assert 10 < len(splits["validation"]) < 60
    for split, tokens in splits.items():
        assert_documents(tmp_path / "out" / split, tokens)
    shown = capsys.readouterr()
    assert "left out by their endings: 1 .png" in shown.err
    assert f"next: lighthouse train --data.path {tmp_path}/out/train --model.vocab_size 400" in shown.out
    assert not (tmp_path / "out.partial").exists()


def test_manifest(tmp_path, tokenizer):
    documents = write_mixed(tmp_path / "corpus")
    prepare(tmp_path / "corpus", tokenizer=tokenizer, output=tmp_path / "out", validation=0.2, seq_lens=[64])
    out = tmp_path / "out"
    manifest = json.loads((out / "manifest.json").read_text())
    for data in manifest["data"].values():
        for name, file in data["files"].items():
            content = (out / name).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (file["bytes"], file["sha256"])
    for name, checksum in manifest["tokenizer_files"].items():
        assert hashlib.sha256((out / "tokenizer" / name).read_bytes()).hexdigest() == checksum
    assert (out / "tokenizer" / "tokenizer.json").read_bytes() == tokenizer.read_bytes()
    assert manifest["documents"] == {"text_bytes": sum(len(text.encode()) for text in documents), "empty": 0, "bad": 0,
                                     "lost": {"documents": 0, "characters": 0}}
    assert manifest["warnings"] == []
    assert manifest["made_of"]["tokenizer"]["end_of_text"] == {"id": 0, "token": END}
    assert [source["name"].rsplit("/", 1)[1] for source in manifest["made_of"]["sources"]] == [
        "a.jsonl.zst", "b.jsonl.gz", "c.JSONL", "d.parquet", "e.md", "f.txt", "g.txt.zst"]
    assert (manifest["dtype"], manifest["vocab_size"]) == ("uint16", 400)


def test_the_bytes_do_not_depend_on_processes(tmp_path, tokenizer):
    write_mixed(tmp_path / "corpus")
    write(tmp_path / "corpus" / "h.jsonl", json_lines(texts(3000, seed=8)))  # more than one piece
    arguments = ["--tokenizer", tokenizer, "--validation", "0.1"]
    for count in (1, 3):
        result = run(tmp_path / "corpus", *arguments, "--output", tmp_path / f"out-{count}", "--processes", count)
        assert result.returncode == 0, result.stderr
    assert folder_bytes(tmp_path / "out-1") == folder_bytes(tmp_path / "out-3")


def test_small_pieces_are_no_other_bytes(tmp_path, tokenizer):
    """A document, a line and a separator may begin in one piece of a file and end in another."""
    write_mixed(tmp_path / "corpus")
    write(tmp_path / "corpus" / "s.txt", "<->".join(texts(300, seed=12)))
    arguments = [tmp_path / "corpus", "--tokenizer", tokenizer, "--separator", "<->", "--processes", 1]
    for small in (False, True):
        subprocess.run(command(*arguments, "--output", tmp_path / f"out-{small}", small_pieces=small), check=True, timeout=60)
    assert folder_bytes(tmp_path / "out-True") == folder_bytes(tmp_path / "out-False")
    assert len(read_documents(tmp_path / "out-True" / "train")) > 400


def test_bytes(tmp_path):
    write(tmp_path / "a.txt", "ŝi 1\n")
    write(tmp_path / "b.md", "\ufeffbom")
    assert prepare(tmp_path / "a.txt", tmp_path / "b.md", tokenizer="bytes", output=tmp_path / "out", validation=0) == 0
    found = [bytes(tokens.astype(np.uint8)) for tokens in read_documents(tmp_path / "out" / "train")]
    assert found == ["ŝi 1\n\0".encode(), b"bom\0"]
    assert sorted(folder_bytes(tmp_path / "out")) == ["manifest.json", "train.bin", "train.idx"]


def test_separator_key_endings_and_empty_documents(tmp_path):
    write(tmp_path / "in" / "a.txt", "one##two####\nthree")
    write(tmp_path / "in" / "b.jsonl", '{"content": "four", "text": 4}\n\n  \r\n{"content": ""}\r\n{"content": "five"}')
    write(tmp_path / "in" / "c.py", "six")
    assert prepare(tmp_path / "in", tokenizer="bytes", output=tmp_path / "out", validation=0, separator="##",
                   text_key="content", text_endings=[".PY"]) == 0
    found = [bytes(tokens[:-1].astype(np.uint8)).decode() for tokens in read_documents(tmp_path / "out" / "train")]
    assert found == ["one", "two", "\nthree", "four", "five", "six"]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["documents"]["empty"] == 2


@pytest.mark.parametrize("kind", [arrow.string(), arrow.large_string(), arrow.string_view(), arrow.binary(), arrow.binary_view(),
                                  arrow.dictionary(arrow.int8(), arrow.string()),
                                  arrow.dictionary(arrow.int32(), arrow.large_string())], ids=str)
def test_columns_of_every_type_of_text(tmp_path, kind):
    column = arrow.array(["one", "two", "", "one"])
    column = column.dictionary_encode().cast(kind) if arrow.types.is_dictionary(kind) else column.cast(kind)
    write_table(tmp_path / "a.parquet", column)
    assert prepare(tmp_path / "a.parquet", tokenizer="bytes", output=tmp_path / "out", validation=0) == 0
    assert (tmp_path / "out" / "train.bin").read_bytes()[::2] == b"one\0two\0one\0"


def test_a_large_vocabulary_is_int32(tmp_path):
    vocabulary = {END: 0, "[UNK]": 1, "a": 65535, "b": 65536}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model.add_special_tokens([END])
    for name, top in (("big", "b"), ("small", "a")):
        if top == "a":
            del vocabulary["b"]
            model.model = tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]")
        model.save(str(tmp_path / "tokenizer.json"))
        write(tmp_path / "a.txt", f"a {top} c")
        assert prepare(tmp_path / "a.txt", tokenizer=tmp_path / "tokenizer.json", output=tmp_path / name, validation=0) == 0
        [document] = read_documents(tmp_path / name / "train")
        assert document.tolist() == [65535, {"a": 65535, "b": 65536}[top], 1, 0]
        assert document.dtype == {"big": "<i4", "small": "<u2"}[name]


# ---- tokenizers -----------------------------------------------------------------------------------------------------

def test_what_a_tokenizer_would_add_or_cut_is_not_done(tmp_path):
    tokenizer = byte_level_bpe(["<s>", END])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = f"ships see it. {END} <s> " * 4
    write(tmp_path / "a.txt", text)
    plain = byte_level_bpe(["<s>", END])
    for parse in (False, True):
        plain.encode_special_tokens = not parse
        ids = plain.encode(text).ids
        assert (plain.token_to_id(END) in ids) == parse
        options = {"parse_special": True} if parse else {}
        assert prepare(tmp_path / "a.txt", tokenizer=tmp_path / "tokenizer.json", output=tmp_path / f"out-{parse}",
                       validation=0, begin_of_text="<s>", **options) == 0
        assert_documents(tmp_path / f"out-{parse}" / "train", [[0, *ids, 1]])


def characters_bpe(alphabet, pre_tokenizer=None, **options):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({token: number for number, token in enumerate([END, *alphabet])}, [],
                                                           **options))
    tokenizer.add_special_tokens([END])
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    return tokenizer


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
BYTE_LEVEL = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
ALPHABET = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())


@pytest.mark.parametrize("tokenizer, lost", [
    (characters_bpe("abc \n"), (2, 5)),
    (characters_bpe("abc", tokenizers.pre_tokenizers.Whitespace()), (2, 5)),
    (characters_bpe("abc z灯\n"), (0, 0)),
    (characters_bpe(["a", "b", *BYTES], byte_fallback=True), None),
    (characters_bpe(["a", "b", *BYTES[:0x80]], byte_fallback=True), (1, 1)),
    (characters_bpe("abc\n?", unk_token="?"), None),
    (characters_bpe(ALPHABET, BYTE_LEVEL), None),
    (characters_bpe(ALPHABET[5:40] + [*"ĠĊabc"], BYTE_LEVEL), (2, 5)),
    (characters_bpe(ALPHABET[5:40] + [*"ĠĊabcz\u00e7"], BYTE_LEVEL), (1, 1)),  # e7 of e7 81 af
], ids=["characters", "words", "all characters", "fallback", "fallback to ASCII", "unknown", "bytes", "some bytes", "a byte of three"])
def test_text_that_has_no_token_is_counted(tmp_path, tokenizer, lost, capsys):
    """`lost`: None where the tokenizer is known to have a token for everything."""
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    texts = ["a灯b\nc z", "zzz", "ab"]
    write(tmp_path / "a.jsonl", json_lines(texts))
    assert prepare(tmp_path / "a.jsonl", tokenizer=tmp_path / "tokenizer.json", output=tmp_path / "out", validation=0) == 0
    shown, manifest = capsys.readouterr(), json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert load_tokenizer(tmp_path / "tokenizer.json").loses == (lost is not None)
    documents, characters = lost or (0, 0)
    assert manifest["documents"]["lost"] == {"documents": documents, "characters": characters}
    assert ("warning: the tokenizer has no token for '灯', nor one for what" in shown.err) == (documents > 0)
    assert (f"warning: the tokenizer has no token for {characters} characters of {documents} doc" in shown.out) == (documents > 0)
    ids = [ids for text in texts if (ids := tokenizer.encode(text).ids)]  # no document of its end alone
    assert_documents(tmp_path / "out" / "train", [[*document, 0] for document in ids])
    assert manifest["documents"]["empty"] == len(texts) - len(ids)


def with_post_processor(processor):
    tokenizer = byte_level_bpe(["<s>", END])
    tokenizer.post_processor = processor
    return tokenizer


TEMPLATE = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])


@pytest.mark.parametrize("processor, said", [
    (TEMPLATE, True), (tokenizers.processors.Sequence([tokenizers.processors.ByteLevel(), TEMPLATE]), True),
    (tokenizers.processors.BertProcessing((END, 1), ("<s>", 0)), True), (tokenizers.processors.ByteLevel(), False),
    (tokenizers.processors.TemplateProcessing(single="$A <s>", special_tokens=[("<s>", 0)]), False),
    (tokenizers.processors.TemplateProcessing(single="<q> $A", special_tokens=[("<q>", 7777)]), False)],
    ids=["template", "sequence", "bert", "bytes", "behind", "unknown"])
def test_a_token_that_the_tokenizer_puts_first(tmp_path, processor, said, capsys):
    """As Llama 3 does: prompts will begin with it."""
    with_post_processor(processor).save(str(tmp_path / "tokenizer.json"))
    write(tmp_path / "a.txt", "one")
    for options, expected_now in (({}, said), ({}, said), ({"begin_of_text": "<s>", "overwrite": True}, False)):
        assert prepare(tmp_path / "a.txt", tokenizer=tmp_path / "tokenizer.json", output=tmp_path / "out", validation=0, **options) == 0
        shown = capsys.readouterr().out
        assert ("warning: the tokenizer puts <s> before a text" in shown and "--begin-of-text '<s>'" in shown) == expected_now
    assert f"every document begins with '<s>' (0) and ends with {END!r} (1)" in shown


@pytest.mark.parametrize("chats, special, said", [("key", ["<end>", END], True), ("file", ["<end>", "</s>"], True),
                                                  ("key", ["<end>"], False), (None, ["<end>", END], False)])
def test_the_end_of_a_tokenizer_for_chats(tmp_path, chats, special, said, capsys):
    """Its end of a turn is no end of a text where it has one of that name."""
    folder = tmp_path / "tokenizer"
    write(folder / "tokenizer.json", byte_level_bpe(special).to_str())
    write(folder / "tokenizer_config.json", json.dumps({"eos_token": "<end>"} | ({"chat_template": "{{x}}"} if chats == "key" else {})))
    if chats == "file":
        write(folder / "chat_template.jinja", "{{x}}")
    write(tmp_path / "a.txt", "one")
    assert prepare(tmp_path / "a.txt", tokenizer=folder, output=tmp_path / "out", validation=0) == 0
    shown = capsys.readouterr()
    assert "every document ends with '<end>' (0)" in shown.out
    for stream in shown:
        assert ("warning: documents end with <end>" in stream and f"--end-of-text '{special[-1]}'" in stream) == said
    assert prepare(tmp_path / "a.txt", tokenizer=folder, output=tmp_path / "out", validation=0, overwrite=True, end_of_text="<end>") == 0
    assert "warning" not in "".join(capsys.readouterr())


@pytest.fixture(scope="module")
def pieces():
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts(200, seed=3)), model_writer=model, vocab_size=200,
                                             model_type="bpe", byte_fallback=False, minloglevel=2, num_threads=1)
    return model.getvalue()


@pytest.mark.parametrize("as_folder", [False, True])
def test_sentencepiece(tmp_path, pieces, as_folder):
    import sentencepiece
    model = write(tmp_path / "model" / ("tokenizer.model" if as_folder else "my.model"), pieces)
    documents = texts(20, seed=4)
    write(tmp_path / "a.jsonl", json_lines(documents))
    assert prepare(tmp_path / "a.jsonl", tokenizer=model.parent if as_folder else model, output=tmp_path / "out", validation=0,
                   begin_of_text="<s>", processes=2) == 0
    processor = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    assert_documents(tmp_path / "out" / "train", [[1, *processor.encode(text), 2] for text in documents])
    assert (tmp_path / "out" / "tokenizer" / "tokenizer.model").read_bytes() == pieces


# ---- memory ---------------------------------------------------------------------------------------------------------

PEAK = ("import re, sys; from lighthouse_prepare.__main__ import main; assert main() == 0; "
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])")


def peak_memory(source, output):
    """In bytes, of one process."""
    result = subprocess.run([sys.executable, "-c", PEAK, source, "--tokenizer", "bytes", "--output", output, "--processes", "1",
                             "--separator", "##"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return int(result.stdout.split()[-1]) * 1024


@pytest.mark.parametrize("ending", [".jsonl.zst", ".parquet", ".txt"])
def test_memory_does_not_grow_with_the_input(tmp_path, ending):
    """30 MB of text more, which are 60 MB of tokens, may take 16 MB more."""
    documents, peaks = texts(1000, seed=20, mean=600), []
    for times in (1, 11):
        source = tmp_path / f"{times}{ending}"
        if ending == ".parquet":
            write_table(source, documents * times, row_group_size=1000)
        elif ending == ".txt":
            write(source, "".join(text + "##" for text in documents) * times)
        else:
            write(source, json_lines(documents) * times, source.suffix)
        peaks.append(peak_memory(source, tmp_path / f"out-{times}"))
    assert (tmp_path / "out-11" / "train.bin").stat().st_size - (tmp_path / "out-1" / "train.bin").stat().st_size > 59e6
    assert peaks[1] - peaks[0] < 16e6, peaks


def test_long_rows_of_a_table_are_few_at_once(tmp_path):
    """60 MB of documents of 1 MB in one row group, which are 120 MB of tokens, may take 16 MB more than 4 of them. A page is
    decompressed whole: here it has a row."""
    document, peaks = " ".join(texts(1, seed=21, mean=200000))[:1 << 20], []
    for count in (4, 64):
        write_table(tmp_path / f"{count}.parquet", [f"{number} {document}" for number in range(count)], use_dictionary=False,
                    write_batch_size=1)
        peaks.append(peak_memory(tmp_path / f"{count}.parquet", tmp_path / f"out-{count}"))
    assert peaks[1] - peaks[0] < 16e6, peaks


def test_rows_of_a_table_are_handed_out_by_their_bytes(tmp_path):
    """So that several processes share them, wherever reading begins."""
    rows = [f"{number:04}" * (1 << 17 if number % 3 == 0 else 5) for number in range(30)]
    write_table(tmp_path / "a.parquet", rows, row_group_size=12)
    [source], _ = list_sources([str(tmp_path / "a.parquet")])
    reading = Reading("text", b"", 1 << 24, False)
    for start in (0, 1, 11, 12, 25, 29, 30):
        lists = list(read_sources([source], (0, start), reading))
        chunks = [chunk for together in lists for chunk in together if chunk.records]
        assert b"".join(row for chunk in chunks for row in chunk.records).decode() == "".join(rows[start:])
        assert [chunk.first for chunk in chunks] == [start, *(chunk.after[1] for chunk in chunks)][:len(chunks)]
        assert [chunk.disk for chunk in chunks] == sorted(chunk.disk for chunk in chunks)
        assert start or len(lists) >= 5


# ---- stopped, killed, and gone on with ------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def long_corpus(tmp_path_factory, tokenizer):
    """(arguments, bytes of the folder that is to come out): some seconds of work in about 200 pieces."""
    folder = tmp_path_factory.mktemp("long")
    write_mixed(folder / "corpus")
    write(folder / "corpus" / "a.jsonl.zst", json_lines(texts(600, seed=31)), ".zst")
    write_table(folder / "corpus" / "d.parquet", texts(300, seed=32), row_group_size=100)
    write(folder / "corpus" / "s.txt", "##".join(texts(600, seed=33)))
    arguments = [folder / "corpus", "--tokenizer", tokenizer, "--separator", "##", "--validation", 0.1,
                 "--checkpoint-seconds", 0]
    subprocess.run(command(*arguments, "--output", folder / "out"), check=True, timeout=60)
    return arguments, folder_bytes(folder / "out")


def wait_for_progress(process, folder, times=1):
    """Until there is more to go on with, as many times, or the process has ended."""
    def saved():
        return (folder / "progress.json").stat().st_mtime_ns if (folder / "progress.json").exists() else None

    for _ in range(times):
        before = saved()
        while saved() == before and process.poll() is None:
            time.sleep(0.001)


def test_killed_at_random_moments(tmp_path, long_corpus):
    """Half of them at any moment of the start, half of them when work goes on: moments that are taken from what the
    program does, as machines differ in how long that takes."""
    arguments, whole = long_corpus
    out, moments, kills, went_on, start = tmp_path / "out", random.Random(1), 0, 0, None
    while kills < 20:
        process = subprocess.Popen(command(*arguments, "--output", out, "--processes", 1 if kills % 4 == 0 else 2,
                                           small_pieces=True), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                   text=True, start_new_session=True)
        begin = time.monotonic()
        if kills % 2 == 0:
            wait_for_progress(process, tmp_path / "out.partial", 1 if start is None else moments.randint(1, 4))
            start = start or time.monotonic() - begin
        else:
            time.sleep(moments.uniform(0, start))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        errors = process.communicate(timeout=60)[1]
        went_on += "going on in" in errors
        assert process.returncode in (0, -signal.SIGKILL), errors
        if process.returncode == 0:  # before it was killed: again, from the begin
            assert folder_bytes(out) == whole
            shutil.rmtree(out)
        else:
            kills += 1
    result = run(*arguments, "--output", out)
    assert result.returncode == 0, result.stderr
    assert folder_bytes(out) == whole
    assert went_on >= 5
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_is_done(tmp_path, long_corpus, number, processes):
    """Sent to the workers too, as a terminal does."""
    arguments, whole = long_corpus
    arguments = [*arguments, "--output", tmp_path / "out", "--processes", processes]
    process = subprocess.Popen(command(*arguments, small_pieces=True), stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    wait_for_progress(process, tmp_path / "out.partial")
    os.killpg(process.pid, number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and f"stopped by {number.name}; what is done is kept in" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()
    result = run(*arguments)
    assert result.returncode == 0 and "going on in" in result.stderr
    assert folder_bytes(tmp_path / "out") == whole


def test_workers_end_with_a_killed_parent(tmp_path, long_corpus):
    process = subprocess.Popen(command(*long_corpus[0], "--output", tmp_path / "out", "--processes", 2, small_pieces=True),
                               stderr=subprocess.PIPE, start_new_session=True)
    wait_for_progress(process, tmp_path / "out.partial")
    process.kill()
    process.wait()
    assert process.stderr.read() is not None  # ends when the last worker, which holds it too, has ended


def test_a_full_disk(tmp_path, long_corpus):
    """A limit of the file size stands for it: both are errors of a write."""
    arguments, whole = long_corpus
    arguments = [*arguments, "--output", tmp_path / "out", "--processes", 1]
    half = len(whole["train.bin"]) // 2
    result = subprocess.run(command(*arguments, small_pieces=True), capture_output=True, text=True, timeout=60,
                            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (half, half)))
    assert result.returncode == 1 and "out.partial: cannot be written: File too large; what is done is kept" in result.stderr
    assert not (tmp_path / "out").exists()
    result = run(*arguments)
    assert result.returncode == 0 and "going on in" in result.stderr
    assert folder_bytes(tmp_path / "out") == whole


class Interrupted:
    """A corpus of three files that stops at a broken line of the second, in pieces of one file."""

    def __init__(self, folder, capsys):
        self.corpus, self.out, self.capsys = folder / "corpus", folder / "out", capsys
        self.first = texts(60, seed=41)
        write(self.corpus / "a.jsonl", json_lines(self.first))
        write(self.corpus / "b.jsonl", json_lines(texts(60, seed=42)) + b"broken\n")
        write(self.corpus / "c.jsonl", json_lines(texts(60, seed=43)))

    def __call__(self, exit_code, *parts, **options):
        options = {"tokenizer": "bytes", "output": self.out, "validation": 0} | options
        assert prepare(self.corpus, **options) == exit_code
        errors = self.capsys.readouterr().err
        for part in parts:
            assert part in errors
        return errors


@pytest.fixture
def interrupted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lighthouse_prepare.reader.CHUNK", 1)
    monkeypatch.setattr("lighthouse_prepare.streams.BLOCK", 2000)
    interrupted = Interrupted(tmp_path, capsys)
    interrupted(1, "b.jsonl:61: is no JSON")
    assert not (tmp_path / "out").exists()
    return interrupted


def test_a_mended_file_is_read_from_its_begin(interrupted):
    mended = texts(50, seed=44)
    write(interrupted.corpus / "b.jsonl", json_lines(mended))
    interrupted(0, "after 60 documents")
    found = [bytes(tokens[:-1].astype(np.uint8)).decode() for tokens in read_documents(interrupted.out / "train")]
    assert found == interrupted.first + mended + texts(60, seed=43)


def test_bad_documents_may_be_left_out_when_going_on(interrupted):
    interrupted(0, "going on in", "left out: ", "b.jsonl:61", skip_bad=True)
    assert len(read_documents(interrupted.out / "train")) == 180
    assert json.loads((interrupted.out / "manifest.json").read_text())["documents"]["bad"] == 1


def test_other_options_are_no_way_to_go_on(interrupted, tmp_path):
    byte_level_bpe().save(str(tmp_path / "tokenizer.json"))
    interrupted(1, "out.partial: was begun with another tokenizer", '"bytes" there, "tokenizers" here',
                "--overwrite begins anew", tokenizer=tmp_path / "tokenizer.json")
    interrupted(1, "was begun with other options (validation 0.0 there, 0.5 here)", validation=0.5)
    write(interrupted.corpus / "a.jsonl", json_lines(interrupted.first[:-1]))
    interrupted(1, "a.jsonl: has changed or is gone since")
    (interrupted.corpus / "b.jsonl").unlink()
    assert "going on" not in interrupted(0, overwrite=True)
    assert len(read_documents(interrupted.out / "train")) == 119


def test_damaged_workplaces(interrupted):
    partial = interrupted.out.with_name("out.partial")
    (partial / "result" / "train.bin").write_bytes(b"")
    interrupted(1, "train.bin: is shorter than progress.json beside it says", "--overwrite")
    (partial / "progress.json").write_text("{")
    interrupted(1, "progress.json: is damaged")
    (partial / "progress.json").write_text('{"place": 1}')
    interrupted(1, "out.partial: is damaged", "--overwrite begins anew")
    (partial / "notes.txt").write_text("mine")
    interrupted(1, "out.partial: holds 'notes.txt', which is not from lighthouse-prepare")


def test_two_at_once(interrupted):
    partial = interrupted.out.with_name("out.partial")
    holder = subprocess.Popen(["flock", partial / "lock", "sh", "-c", "echo held; read x"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    holder.stdout.readline()
    interrupted(1, "another lighthouse-prepare works there")
    holder.communicate(b"\n")


def test_a_data_set_that_is_there(tmp_path, capsys):
    write(tmp_path / "a.txt", "one")
    options = {"tokenizer": "bytes", "output": tmp_path / "out", "validation": 0}
    assert prepare(tmp_path / "a.txt", **options) == 0
    first, shown = folder_bytes(tmp_path / "out"), capsys.readouterr().out
    (tmp_path / "out.partial" / "result").mkdir(parents=True)  # of a run that was killed as it ended
    assert prepare(tmp_path / "a.txt", **options) == 0
    again = capsys.readouterr()
    assert again.out == shown and "is there already" in again.err
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "out"]

    write(tmp_path / "a.txt", "two!")
    assert prepare(tmp_path / "a.txt", **options) == 1
    assert "holds another data set; choose another folder, or replace it with --overwrite" in capsys.readouterr().err
    assert folder_bytes(tmp_path / "out") == first
    assert prepare(tmp_path / "a.txt", overwrite=True, **options) == 0
    assert (tmp_path / "out" / "train.bin").read_bytes() == b"t\0w\0o\0!\0\0\0"
    (tmp_path / "out" / "train.bin").write_bytes(b"t")
    assert prepare(tmp_path / "a.txt", **options) == 1
    assert "a data set that is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["out.replaced", "out.partial/result", "out.partial/replaced", "out.old"])
def test_folders_of_others_stay(tmp_path, name, capsys):
    mine = write(tmp_path / name / "mine.txt", "mine")
    options = {"tokenizer": "bytes", "output": tmp_path / "out", "validation": 0}
    for text in ("one", "two!"):
        write(tmp_path / "a.txt", text)
        code = prepare(tmp_path / "a.txt", overwrite=True, **options)
        assert code == ("partial" in name), capsys.readouterr().err
        assert mine.read_text() == "mine" and not (tmp_path / "out.partial" / "lock").exists()


@pytest.mark.parametrize("there", [True, False])
def test_output_may_be_a_link(tmp_path, there, capsys):
    """To a folder of scratch, say: the data lie there, and the link stays."""
    (tmp_path / "scratch" / ("tokens" if there else "")).mkdir(parents=True)
    (tmp_path / "out").symlink_to("scratch/tokens")
    options = {"tokenizer": "bytes", "output": tmp_path / "out", "validation": 0}
    for text in ("one", "two!"):
        write(tmp_path / "a.txt", text)
        for _ in range(2):
            assert prepare(tmp_path / "a.txt", overwrite=True, **options) == 0, capsys.readouterr().err
        assert f"--data.path {tmp_path}/out/train" in capsys.readouterr().out
        assert prepare(tmp_path / "a.txt", **options) == 0
        assert "is there already" in capsys.readouterr().err
        assert (tmp_path / "out" / "train.bin").stat().st_size == 2 * len(text) + 2
        assert sorted(path.relative_to(tmp_path).as_posix() for path in [*tmp_path.glob("*"), *tmp_path.glob("scratch/*")]) == [
            "a.txt", "out", "scratch", "scratch/tokens"]
        assert (tmp_path / "out").is_symlink()


def test_what_is_replaced_outlives_a_kill(tmp_path, monkeypatch):
    """Between the moves of the old data set away and of the new one to its place."""
    out, options = tmp_path / "out", {"tokenizer": "bytes", "output": tmp_path / "out", "validation": 0, "overwrite": True}
    write(tmp_path / "a.txt", "one")
    prepare(tmp_path / "a.txt", **options)
    old, rename = folder_bytes(out), os.rename

    def killed(source, target):
        if target == out:
            raise OSError("killed")
        rename(source, target)

    write(tmp_path / "b.txt", "two!")
    with monkeypatch.context() as patch:
        patch.setattr("os.rename", killed)
        assert prepare(tmp_path / "b.txt", **options) == 1
    assert not out.exists()
    shutil.copytree(tmp_path / "out.partial", tmp_path / "copy")
    write(tmp_path / "c.jsonl", "no JSON")
    out.mkdir()
    assert prepare(tmp_path / "c.jsonl", **options) == 1  # with nothing to go on with
    assert folder_bytes(out) == old and not (tmp_path / "out.partial").exists()
    shutil.rmtree(out)
    (tmp_path / "copy").rename(tmp_path / "out.partial")
    assert prepare(tmp_path / "b.txt", **options) == 0
    assert (out / "train.bin").read_bytes() == b"t\0w\0o\0!\0\0\0"
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt", "c.jsonl", "out"]


def test_a_data_set_that_comes_meanwhile_stays(tmp_path, monkeypatch, capsys):
    write(tmp_path / "a.txt", "one")
    options = {"tokenizer": "bytes", "output": tmp_path / "out", "validation": 0}
    prepare(tmp_path / "a.txt", **options)
    old = folder_bytes(tmp_path / "out")
    write(tmp_path / "b.txt", "two!")
    with monkeypatch.context() as patch:
        patch.setattr("lighthouse_prepare.prepare.settle_earlier", lambda *_: None)
        assert prepare(tmp_path / "b.txt", **options) == 1
    assert "holds a data set that was not there at the start; what is done is kept" in capsys.readouterr().err
    assert folder_bytes(tmp_path / "out") == old
    assert prepare(tmp_path / "b.txt", overwrite=True, **options) == 0


@pytest.mark.parametrize("changes", [{"file": -1}, {"record": 1e9}, {"documents": 5}, {"tokens": {"train": 1}}, {"empty": None}])
def test_progress_that_makes_no_sense(interrupted, changes):
    path = interrupted.out.with_name("out.partial") / "progress.json"
    progress = json.loads(path.read_text())
    progress["place"] |= changes
    path.write_text(json.dumps(progress))
    interrupted(1, "out.partial: is damaged; --overwrite begins anew")


def test_names_of_any_bytes(tmp_path):
    name = os.fsdecode(b"caf\xe9 1")
    write(tmp_path / f"{name}.txt", "one")
    result = run(tmp_path / f"{name}.txt", "--tokenizer", "bytes", "--output", tmp_path / name, "--validation", 0, "--processes", 1)
    assert result.returncode == 0, result.stderr
    assert f"--data.path '{tmp_path}/caf\\udce9 1/train'" in result.stdout
    assert len(read_documents(tmp_path / name / "train")) == 1


# ---- what is said ---------------------------------------------------------------------------------------------------

def test_statistics():
    lengths = np.array([1, 2, 3, 4, 7, 8, 100, 1 << 20], dtype=np.int32)
    numbers = length_statistics(lengths, [8, 64])
    assert [(row["from"], row["documents"], row["tokens"]) for row in numbers["histogram"]] == [
        (1, 1, 1), (2, 2, 5), (4, 2, 11), (8, 1, 8), (64, 1, 100), (1 << 20, 1, 1 << 20)]
    total = 125 + (1 << 20)
    rows = 6 + 13 + (1 << 17)
    assert (numbers["documents"], numbers["tokens"], numbers["longest"]) == (8, total, 1 << 20)
    assert numbers["sequences"][0] == {"length": 8, "count": total // 8, "dropped_tokens": total % 8,
                                       "in_longer_documents": (total - 17) / total, "padding": 1 - total / (8 * rows)}


def test_lines_where_there_is_no_terminal(tmp_path, tokenizer, capsys, monkeypatch):
    monkeypatch.setattr("lighthouse_prepare.progress.LINE_SECONDS", 0)
    write_mixed(tmp_path / "corpus")
    prepare(tmp_path / "corpus", tokenizer=tokenizer, output=tmp_path / "out")
    assert re.search(r"^lighthouse-prepare: 100% of 0\.\d MB, [\d.]+ MB/s of text, [\d,]+ tokens/s$", capsys.readouterr().err,
                     re.MULTILINE)


def test_a_bar_on_a_terminal(tmp_path, long_corpus):
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    process = subprocess.Popen(command(*long_corpus[0], "--output", tmp_path / "out", "--processes", 1, small_pieces=True),
                               stderr=terminal, stdout=subprocess.DEVNULL)
    os.close(terminal)
    shown = b""
    while True:
        try:
            shown += os.read(master, 4096)
        except OSError:  # the other side is closed
            break
    assert process.wait() == 0
    assert re.search(r"100%\|█+\|.*of files, [\d.]+ MB/s of text, [\d,]+ tokens/s", shown.decode(errors="replace"))


def test_needs_no_torch(tmp_path):
    write(tmp_path / "a.txt", "one")
    code = ("import sys; from lighthouse_prepare.__main__ import main; status = main(sys.argv[1:]); "
            "assert not {'torch', 'lighthouse_attention', 'transformers', 'pyarrow', 'tokenizers'} & set(sys.modules); "
            "sys.exit(status)")
    result = subprocess.run([sys.executable, "-c", code, tmp_path / "a.txt", "--tokenizer", "bytes", "--output",
                             tmp_path / "out", "--validation", "0", "--processes", "1"], capture_output=True, text=True,
                            timeout=60)
    assert result.returncode == 0, result.stderr


def test_a_library_that_is_missing_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    write(tmp_path / "a.txt.zst", "one", ".zst")
    assert prepare(tmp_path / "a.txt.zst", tokenizer="bytes", output=tmp_path / "out") == 1
    assert "zstandard is not installed: pip install 'lighthouse-attention[data]'" in capsys.readouterr().err

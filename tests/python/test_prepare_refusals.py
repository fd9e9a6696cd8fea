"""What lighthouse-prepare refuses: broken files, folders, tokenizers and options. Each case says what is laid down in a folder,
the arguments, the exit code, and what the message must name. Nothing but the sources may be left."""

import gzip
import json
import os
import socket
import struct

import pytest
from prepare_corpora import END, arrow, byte_level_bpe, json_lines, parquet, texts, tokenizers, write, write_table, zstandard

from lighthouse_prepare.__main__ import main

GOOD = json_lines(["one", "two", "three"])
MANY = json_lines(texts(2000, seed=5))


def cut_file(folder, name, content, kept=0.7):
    write(folder / name, content[:int(len(content) * kept)])


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1:]


def large_window(content):
    """As zstd --long=29 compresses what it reads from a pipe."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=29, write_content_size=False)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(content) + stream.flush()


def cut_table(folder):
    content = write_table(folder / "a.parquet", texts(50, seed=6)).read_bytes()
    write(folder / "a.parquet", content[:-200])


def flipped_table(folder):
    path = write_table(folder / "a.parquet", texts(500, seed=6), use_dictionary=False, write_page_checksum=True)
    write(path, flipped(path.read_bytes(), path.stat().st_size // 2))


def invalid_table(folder):
    """Arrow does not look at what is called UTF-8."""
    buffers = [None, arrow.py_buffer(struct.pack("<iii", 0, 3, 4)), arrow.py_buffer(b"one\xff")]
    column = arrow.Array.from_buffers(arrow.string(), 2, buffers)
    parquet.write_table(arrow.table({"text": column}), folder / "a.parquet")


def typed_table(folder, column):
    parquet.write_table(arrow.table({"text": column}), folder / "a.parquet")


def two_columns(folder):
    parquet.write_table(arrow.Table.from_arrays([arrow.array(["a"]), arrow.array(["b"])], names=["text", "text"]),
                        folder / "a.parquet")


def save(folder, tokenizer, normalizer=None, **changes):
    """tok.json, keys of the model changed."""
    content = json.loads(tokenizer.to_str()) | {"normalizer": normalizer}
    content["model"] |= changes
    write(folder / "tok.json", json.dumps(content))


def word_level():
    return tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "</s>": 1}, unk_token="a"))


def tokenizer_folder(folder, config):
    save(folder, byte_level_bpe(["<stop>"]))
    (folder / "tok").mkdir()
    (folder / "tok.json").rename(folder / "tok" / "tokenizer.json")
    write(folder / "tok" / "tokenizer_config.json", config)


def make_socket(folder):
    server = socket.socket(socket.AF_UNIX)
    os.chdir(folder)  # a path of a socket is short
    server.bind("a.jsonl")
    server.close()


def bad_line(line, *parts):
    def lay_down(folder):
        write(folder / "a.jsonl", GOOD + line + b"\n" + GOOD)
    return lay_down, ["a.jsonl"], 1, ["a.jsonl:4: ", *parts, "--skip-bad"]


def with_tokenizer(make, *parts, arguments=()):
    def lay_down(folder):
        write(folder / "a.jsonl", GOOD)
        make(folder)
    return lay_down, ["a.jsonl", "--tokenizer", "tok.json", *arguments], 2, ["tok", *parts]


def option(words, *parts, source="a.jsonl"):
    return lambda folder: write(folder / "a.jsonl", GOOD), [source, *words.split()], 2, parts


def files(*parts, exit_code=1, sources=("in",), **contents):
    def lay_down(folder):
        for name, content in contents.items():
            write(folder / "in" / name.replace("__", "."), content)
    return lay_down, list(sources), exit_code, parts


CASES = {
    # files that are cut, damaged, or not what their names say
    "gz that is cut": (lambda f: cut_file(f, "a.jsonl.gz", gzip.compress(MANY)), ["a.jsonl.gz"], 1,
                       ["a.jsonl.gz: is cut short", "again"]),
    "gz of a folder": files("in/b.txt.gz: is cut short", a__txt=b"one", b__txt__gz=gzip.compress(b"x" * 9999)[:20]),
    "gz that is empty": files("a.txt.gz: is cut short", a__txt__gz=b""),
    "gz that is none": files("a.jsonl.gz: is damaged, or not compressed with gzip", a__jsonl__gz=GOOD),
    "gz with a flipped byte": files("a.jsonl.gz: is damaged", a__jsonl__gz=flipped(gzip.compress(MANY), 3000)),
    "gz with a wrong checksum": files("a.jsonl.gz: is damaged", "CRC", a__jsonl__gz=flipped(gzip.compress(MANY), -7)),
    "gz with something behind it": files("a.jsonl.gz: is damaged", a__jsonl__gz=gzip.compress(GOOD) + b"tail"),
    "zst that is cut": (lambda f: cut_file(f, "a.jsonl.zst", zstandard.compress(MANY)), ["a.jsonl.zst"], 1,
                        ["a.jsonl.zst: is cut short"]),
    "zst that is cut in its first bytes": files("a.jsonl.zst: is cut short", a__jsonl__zst=zstandard.compress(MANY)[:3]),
    "zst cut in its second frame": files("a.jsonl.zst: is cut short",
                                         a__jsonl__zst=zstandard.compress(GOOD) + zstandard.compress(MANY)[:-9]),
    "zst that is empty": files("a.jsonl.zst: is cut short", a__jsonl__zst=b""),
    "zst that is none": files("a.jsonl.zst: is damaged, or not compressed with zstd", a__jsonl__zst=GOOD),
    "zst with a flipped byte": files("a.jsonl.zst: is damaged", a__jsonl__zst=flipped(
        zstandard.ZstdCompressor(write_checksum=True).compress(MANY), 5000)),
    "zst with a large window": files("a.jsonl.zst: is damaged", "zstd -d --long=31", a__jsonl__zst=large_window(MANY)),
    "parquet that is cut": (cut_table, ["a.parquet"], 1, ["a.parquet: is cut short or damaged, or no parquet"]),
    "parquet that is empty": files("a.parquet: is cut short or damaged", a__parquet=b""),
    "parquet that is none": files("a.parquet: is cut short or damaged", a__parquet=GOOD),
    "parquet with a flipped byte": (flipped_table, ["a.parquet"], 1, ["a.parquet: is cut short or damaged"]),
    "text that is Latin-1": files("a.txt:3: is not UTF-8: byte 0xe9 at 13", "iconv",
                                  a__txt="one\n\nmore caf\xe9".encode("latin1")),
    "text that is UTF-16": files("a.txt:1: is not UTF-8: byte 0xff at 0", a__txt="one".encode("utf-16")),
    "text that is a picture": files("a.md:1: is not UTF-8: byte 0x89", a__md=b"\x89PNG\r\n"),
    "text after a separator": (lambda f: write(f / "a.txt", b"one##two\xff##three"), ["a.txt", "--separator", "##"], 1,
                               ["a.txt: document 2: is not UTF-8"]),
    "text that is too long": (lambda f: write(f / "a.txt", b"x" * (1 << 20) + b"y"), ["a.txt", "--max-document-mib", "1"], 1,
                              ["a.txt: document 1: a document of more than 1 MiB", "--max-document-mib", "--separator"]),
    "a separator that is not there": (lambda f: write(f / "a.txt", b"one##" + b"x" * (1 << 21)), ["a.txt", "--separator", "##",
                                      "--max-document-mib", "1"], 1, ["a.txt: document 2 is longer than 1 MiB; is '##'"]),
    "a line without end": (lambda f: write(f / "a.jsonl", GOOD + b"x" * (9 << 20)), ["a.jsonl", "--max-document-mib", "1"], 1,
                           ["a.jsonl:4: a line of more than 8 MiB"]),
    # lines and rows
    "a line that is no JSON": bad_line(b"{text: 1}", "is no JSON: Expecting property name", "at column 2"),
    "a line that is cut": bad_line(b'{"text": "fo', "is no JSON: Unterminated string"),
    "a line of two objects": bad_line(b'{"text": "a"}{"text": "b"}', "is no JSON: Extra data at column 14"),
    "a line that is a list": bad_line(b'["text"]', "is a JSON list, not an object with a key 'text'"),
    "a line that is text": bad_line(b'"text"', "is a JSON str"),
    "a line that is deep": bad_line(b'{"text": ' + b"[" * 100000, "is no JSON"),
    "a line without the key": bad_line(b'{"id": 1, "content": "x"}', "has no key 'text'",
                                       "--text-key names one of 'id', 'content'"),
    "a line without any key": bad_line(b"{}", "has no key 'text'"),
    "a line with null": bad_line(b'{"text": null}', "the value of 'text' is null, not text"),
    "a line with a number": bad_line(b'{"text": 17}', "the value of 'text' is int, not text"),
    "a line that is not UTF-8": bad_line(b'{"text": "caf\xe9"}', "is not UTF-8: byte 0xe9 at 13"),
    "a line with half a surrogate": bad_line(b'{"text": "ab\\ud83d"}', "half of a surrogate pair at character 3"),
    "a line in a gz": (lambda f: write(f / "a.jsonl", GOOD + b"broken", ".gz"), ["a.jsonl"], 1, ["a.jsonl:1: is not UTF-8"]),
    "a table without the column": (lambda f: write_table(f / "a.parquet", ["x"], key="content"), ["a.parquet"], 1,
                                   ["a.parquet: has no column 'text'; --text-key names one of id, content"]),
    "a table of numbers": (lambda f: typed_table(f, [1, 2]), ["a.parquet"], 1, ["column 'text' is of type int64, not of text"]),
    "a table of lists": (lambda f: typed_table(f, [["a"]]), ["a.parquet"], 1, ["column 'text' is of type list<"]),
    "a table of categories of numbers": (lambda f: typed_table(f, arrow.array([1, 2]).dictionary_encode()),
                                         ["a.parquet"], 1, ["column 'text' is of type ", "int64", "not of text"]),
    "a table with null": (lambda f: write_table(f / "a.parquet", ["x", None]), ["a.parquet"], 1,
                          ["a.parquet: row 2: the value of 'text' is null", "--skip-bad"]),
    "a table that is not UTF-8": (invalid_table, ["a.parquet"], 1, ["a.parquet: row 2: is not UTF-8"]),
    "a line of many keys": bad_line(json.dumps({f"key {number}": 1 for number in range(500)} | {"k": 1}).encode(),
                                    "names one of 'key 0', ", "'key 19', … (501 in all); mend"),
    "a line of a long key": bad_line(json.dumps({"k" * 5000: 1}).encode(), "names one of 'k", "kk…; mend"),
    "a table of two such columns": (two_columns, ["a.parquet"], 1, ["a.parquet: has 2 columns 'text'; give it one"]),
    # sources
    "no such file": (lambda f: None, ["nowhere.txt"], 2, ["nowhere.txt: no such file or folder"]),
    "no name": option("", "SOURCE '': must be the name of a file or folder", source=""),
    "a link in a circle": (lambda f: (f / "a.jsonl").symlink_to("a.jsonl"), ["a.jsonl"], 2,
                           ["a.jsonl: cannot be read: Too many levels of symbolic links"]),
    "a name that is too long": option("", "nnn…: cannot be read: File name too long", source="n" * 300),
    "an empty folder": (lambda f: (f / "in").mkdir(), ["in"], 2, ["in: no file to read", ".jsonl"]),
    "a folder of other files": files("in: no file to read", "there is 1 .pdf, 1 no ending", "--text-endings", exit_code=2,
                                     a__pdf="x", b="y"),
    "a file of another kind": (lambda f: write(f / "a.pdf", "x"), ["a.pdf"], 2,
                               ["a.pdf: is not read by its name", "--text-endings"]),
    "a compressed table": (lambda f: write(f / "a.parquet.gz", "x"), ["a.parquet.gz"], 2,
                           ["a.parquet.gz: is not read by its name"]),
    "a socket": (make_socket, ["a.jsonl"], 2, ["a.jsonl: is neither a file nor a folder"]),
    "files without a document": files("no document to train on: 0 for validation, 1 empty", a__jsonl=b"", b__txt=b""),
    "everything for validation": (lambda f: write(f / "a.jsonl", GOOD), ["a.jsonl", "--validation", "0.999999"], 1,
                                  ["no document to train on: 3 for validation", "smaller --validation"]),
    "everything left out": (lambda f: write(f / "a.jsonl", "x\ny\n"), ["a.jsonl", "--skip-bad"], 1,
                            ["no document to train on", "2 left out"]),
    "a source twice": files("in/a.txt and in: one holds the other", exit_code=2, sources=["in/a.txt", "in"], a__txt="x"),
    # output
    "output in the source": files("--output in/out: lies in the source in", exit_code=2, sources=["in", "--output", "in/out"],
                                  a__txt="x"),
    "output is the source": files("--output in: lies in the source in", exit_code=2, sources=["in", "--output", "in"],
                                  a__txt="x"),
    "output around the source": files("the source in/a.txt lies in in", exit_code=2, sources=["in/a.txt", "--output", "in"],
                                      a__txt="x"),
    "output is a file": (lambda f: (write(f / "a.txt", "x"), write(f / "out", "mine")), ["a.txt"], 2,
                         ["--output out: is not a folder"]),
    "output below a file": (lambda f: (write(f / "a.txt", "x"), write(f / "mine", "x")), ["a.txt", "--output", "mine/out"], 1,
                            ["mine/out.partial: cannot be written: Not a directory"]),
    "output of a name that is too long": option(f"--output {'o' * 250}", "ooo…: cannot be written: File name too long"),
    "output of another program": (lambda f: (write(f / "a.txt", "x"), write(f / "out" / "thesis.tex", "mine")),
                                  ["a.txt", "--overwrite"], 2,
                                  ["--output out: holds 'thesis.tex', which is not from lighthouse-prepare"]),
    "output is a link to another program's": (lambda f: (write(f / "a.txt", "x"), write(f / "its" / "thesis.tex", "mine"),
                                                         (f / "out").symlink_to("its")), ["a.txt", "--overwrite"], 2,
                                              ["its: holds 'thesis.tex', which is not from lighthouse-prepare"]),
    "output is a link to a file": (lambda f: (write(f / "a.txt", "x"), (f / "out").symlink_to("a.txt")), ["a.txt"], 2,
                                   ["lies in"]),
    "output is a link to nowhere": (lambda f: (write(f / "a.txt", "x"), (f / "out").symlink_to("scratch/tokens")), ["a.txt"], 2,
                                    ["--output out: is a link to", "scratch/tokens, but there is no folder"]),
    "output is a link in a circle": (lambda f: (write(f / "a.txt", "x"), (f / "out").symlink_to("out")), ["a.txt"], 2,
                                     ["--output out: is a link that leads in a circle"]),
    "output is here": option("--output .", "--output .: cannot be put in place as a whole; name a folder"),
    "output is above": option("--output x/..", "--output x/..: cannot be put in place as a whole"),
    "output is all": option("--output /", "--output '/': must be the name of a folder"),
    "output is mounted": option("--output /proc", "--output /proc: cannot be put in place as a whole"),
    "a workplace that leads in a circle": (lambda f: (write(f / "a.txt", "x"), (f / "out.partial").symlink_to("out.partial")),
                                           ["a.txt"], 1, ["out.partial: cannot be written: File exists"]),
    "output with a manifest of less": (lambda f: (write(f / "a.txt", "x"), write(f / "out" / "manifest.json",
                                                  '{"format": "lighthouse-prepare 1", "data": {}}')), ["a.txt"], 1,
                                       ["--output out: holds a data set that is damaged"]),
    # tokenizers
    "no such tokenizer": option("--tokenizer gpt2", "--tokenizer gpt2: no such file or folder", "bytes"),
    "a tokenizer that is no JSON": with_tokenizer(lambda f: write(f / "tok.json", "{"), "is no tokenizer.json that tokenizers"),
    "a tokenizer that is other JSON": with_tokenizer(lambda f: write(f / "tok.json", "{}"), "is no tokenizer.json"),
    "a tokenizer that is binary": with_tokenizer(lambda f: write(f / "tok.json", b"\xff\x00"), "is neither a tokenizer.json",
                                                 "*.model"),
    "a tokenizer that is cut": with_tokenizer(lambda f: cut_file(f, "tok.json", byte_level_bpe().to_str().encode()),
                                              "is no tokenizer.json"),
    "a tokenizer without tokens": with_tokenizer(lambda f: save(f, tokenizers.Tokenizer(tokenizers.models.BPE())),
                                                 "has no token at all"),
    "a tokenizer without an end": with_tokenizer(lambda f: save(f, byte_level_bpe(["<pad>"])),
                                                 "does not say which token ends a text",
                                                 "--end-of-text", "<pad>"),
    "a tokenizer without special tokens": with_tokenizer(lambda f: save(f, byte_level_bpe([])), "has no special tokens"),
    "an end that is no token": with_tokenizer(lambda f: save(f, byte_level_bpe()), "--end-of-text <eos>: is no token of", END,
                                              arguments=["--end-of-text", "<eos>"]),
    "a begin that is no token": with_tokenizer(lambda f: save(f, byte_level_bpe()), "--begin-of-text <s>: is no token of",
                                               arguments=["--begin-of-text", "<s>"]),
    "a tokenizer that draws": with_tokenizer(lambda f: save(f, byte_level_bpe(), dropout=0.1), "dropout 0.1", "null"),
    "a tokenizer with more tokens than the model": with_tokenizer(lambda f: save(f, byte_level_bpe()), "--vocab-size 399",
                                                                  "tokens up to 399", "at least 400",
                                                                  arguments=["--vocab-size", "399"]),
    "a token that int32 does not hold": with_tokenizer(lambda f: save(f, word_level(), vocab={"a": 0, "</s>": 1 << 31}),
                                                       "has a token 2147483648", "2147483647",
                                                       arguments=["--end-of-text", "</s>"]),
    "a folder without tokenizer": with_tokenizer(lambda f: (f / "tok").mkdir(),
                                                 "has neither tokenizer.json nor tokenizer.model",
                                                 arguments=["--tokenizer", "tok"]),
    "a tokenizer_config that is no JSON": with_tokenizer(lambda f: tokenizer_folder(f, "{"),
                                                         "tokenizer_config.json: is no JSON",
                                                         arguments=["--tokenizer", "tok"]),
    "a tokenizer_config of another end": with_tokenizer(lambda f: tokenizer_folder(f, '{"eos_token": {"content": "</s>"}}'),
                                                        "--end-of-text </s>: is no token", arguments=["--tokenizer", "tok"]),
    "a tokenizer_config of a list": with_tokenizer(lambda f: tokenizer_folder(f, '{"eos_token": ["a"]}'),
                                                   'tokenizer_config.json: its eos_token is ["a"], which is no token\'s text',
                                                   arguments=["--tokenizer", "tok"]),
    "a tokenizer_config of a number": with_tokenizer(lambda f: tokenizer_folder(f, '{"eos_token": {"content": [1]}}'),
                                                     'its eos_token is {"content": [1]}', arguments=["--tokenizer", "tok"]),
    "a tokenizer_config that is deep": with_tokenizer(lambda f: tokenizer_folder(f, "[" * 100000), "is no JSON",
                                                      arguments=["--tokenizer", "tok"]),
    "a tokenizer_config with half a surrogate": with_tokenizer(lambda f: tokenizer_folder(f, '{"a": "\\ud800"}'), "is no JSON",
                                                               arguments=["--tokenizer", "tok"]),
    "a tokenizer that makes the library panic": with_tokenizer(lambda f: save(f, byte_level_bpe(), normalizer={
        "type": "Precompiled", "precompiled_charsmap": "AAAA"}), "is no tokenizer.json that tokenizers"),
    "a tokenizer that leads in a circle": with_tokenizer(lambda f: (f / "tok.json").symlink_to("tok.json"),
                                                         "--tokenizer tok.json: cannot be read: Too many levels"),
    "a sentencepiece model that is none": option("--tokenizer a.jsonl.model", "no such file"),
    "special tokens of bytes": option("--tokenizer bytes --end-of-text x", "--tokenizer bytes", "byte 0"),
    # options
    "no processes": option("--processes 0", "--processes 0: must be from 1 to 1024"),
    "negative processes": option("--processes -3", "--processes -3: must be from 1"),
    "a validation of percent": option("--validation 5", "--validation 5.0: must be at least 0 and below 1"),
    "a negative validation": option("--validation -0.1", "--validation -0.1"),
    "a validation that is no number": option("--validation nan", "--validation nan"),
    "a sequence of nothing": option("--seq-lens 4096 0", "--seq-lens 4096 0: must be from 1"),
    "documents of nothing": option("--max-document-mib 0", "--max-document-mib 0: must be from 1 to 1024"),
    "a vocabulary of nothing": option("--vocab-size 0", "--vocab-size 0: must be at least 1"),
    "a negative interval": option("--checkpoint-seconds -1", "--checkpoint-seconds -1.0"),
    "an ending without a dot": option("--text-endings py", "--text-endings py: must be endings that begin with a dot"),
    "an ending of lines": option("--text-endings .py .JSONL", "--text-endings .py .JSONL: must be other endings than .gz, .jsonl"),
    "an ending of compressed files": option("--text-endings .zst", "--text-endings .zst: must be other endings"),
    "an empty key": option("--text-key=", "--text-key '': must be the name of a key"),
    "a key that is not UTF-8": option("--text-key \udcff", "--text-key '\\udcff': must be UTF-8"),
    "a separator that is not UTF-8": option("--separator \udcff", "--separator '\\udcff': must be UTF-8"),
    "an empty output": option("--output=", "--output ''"),
    "an unknown option": option("--shuffle", "unrecognized arguments: --shuffle"),
}


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def run(folder, arguments, capsys):
    """(exit code, standard error)"""
    given = {"--tokenizer": "bytes", "--output": "out", "--processes": "1"}
    defaults = [word for key, value in given.items() if not any(argument.split("=")[0] == key for argument in arguments)
                for word in (key, value)]
    try:
        code = main([*arguments, *defaults])
    except SystemExit as error:
        code = error.code
    shown = capsys.readouterr()
    assert code == 0 or shown.out == ""
    return code, shown.err


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_refusal(case, tmp_path, capsys, monkeypatch):
    lay_down, arguments, exit_code, parts = case
    monkeypatch.chdir(tmp_path)
    lay_down(tmp_path)
    before = contents(tmp_path)
    code, errors = run(tmp_path, arguments, capsys)
    assert code == exit_code, errors
    assert errors.splitlines()[-1].startswith("lighthouse-prepare: "), errors
    for part in parts:
        assert part in errors.splitlines()[-1]
    assert contents(tmp_path) == before


def test_bad_documents_are_left_out_and_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [case for name, case in CASES.items() if name.startswith("a line ") and "a.jsonl:4: " in case[3]]
    assert len(lines) >= 10
    for number, (lay_down, *_) in enumerate(lines):
        (tmp_path / "in" / str(number)).mkdir(parents=True)
        lay_down(tmp_path / "in" / str(number))
    write_table(tmp_path / "in" / "t.parquet", ["x", None])
    write(tmp_path / "in" / "u.txt", b"\xff")
    code, errors = run(tmp_path, ["in", "--skip-bad", "--validation", "0"], capsys)
    assert code == 0, errors
    assert errors.count("left out: ") == 11 and "left out: more" in errors
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["documents"]["bad"] == len(lines) + 2
    assert manifest["data"]["train"]["statistics"]["documents"] == 6 * len(lines) + 1

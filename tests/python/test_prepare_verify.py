"""lighthouse-prepare --verify: the files of a data set against its manifest."""

from prepare_corpora import byte_level_bpe, json_lines, run, texts, write


def test_what_has_changed_is_found(tmp_path):
    """By --verify alone: nothing else reads all bytes."""
    write(tmp_path / "a.jsonl", json_lines(texts(40, seed=4)))
    byte_level_bpe().save(str(tmp_path / "tokenizer.json"))
    tokens = tmp_path / "tokens"
    assert run(tmp_path / "a.jsonl", "--tokenizer", tmp_path / "tokenizer.json", "--output", tokens, "--validation",
               0.3, "--processes", 1).returncode == 0
    assert run("--verify", tokens).stdout == f"{tokens}: 7 files are as they were written\n"
    (tokens / "tokenizer" / "tokenizer_config.json").unlink()
    data = bytearray((tokens / "train.bin").read_bytes())
    data[100] ^= 1
    (tokens / "train.bin").write_bytes(data)
    with open(tokens / "validation.idx", "ab") as index:
        index.write(b"more")
    result = run("--verify", tokens)
    assert result.returncode == 1 and result.stderr.splitlines() == [
        f"lighthouse-prepare: {tokens}/train.bin: has other bytes than were written",
        f"lighthouse-prepare: {tokens}/validation.idx: has {(tokens / 'validation.idx').stat().st_size} bytes instead of "
        f"{(tokens / 'validation.idx').stat().st_size - 4}",
        f"lighthouse-prepare: {tokens}/tokenizer/tokenizer_config.json: No such file or directory"]
    (tokens / "manifest.json").write_bytes((tokens / "manifest.json").read_bytes()[:100])
    assert run("--verify", tokens).returncode == 1
    assert run("--verify", tmp_path).returncode == 2

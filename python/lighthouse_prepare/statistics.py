"""Numbers of a data set, and as a person reads them."""

import numpy as np

from .megatron import parts


def length_statistics(lengths, seq_lens):
    """`lengths`: [documents] int32 tokens, may be a mapped file. Buckets are [2^b, 2^(b+1)) tokens; `sequences` says of each N
    what the trainer's packings and others make of it."""
    documents, tokens, total, longest = np.zeros(32, dtype=np.int64), np.zeros(32, dtype=np.int64), 0, 0
    rows, in_longer = dict.fromkeys(seq_lens, 0), dict.fromkeys(seq_lens, 0)
    for part in parts(lengths):
        part = part.astype(np.int64)
        bucket = np.frexp(part)[1] - 1  # exact: int32 fits into a double
        documents += np.bincount(bucket, minlength=32)
        tokens += np.bincount(bucket, weights=part, minlength=32).astype(np.int64)
        total, longest = total + int(part.sum()), max(longest, int(part.max()))
        for seq_len in seq_lens:
            rows[seq_len] += int((-(-part // seq_len)).sum())
            in_longer[seq_len] += int(part[part >= seq_len].sum())
    return {"documents": len(lengths), "tokens": total, "longest": longest,
            "histogram": [{"from": 1 << b, "documents": int(documents[b]), "tokens": int(tokens[b])}
                          for b in range(32) if documents[b]],
            "sequences": [{"length": seq_len, "count": total // seq_len, "dropped_tokens": total % seq_len,
                           "in_longer_documents": in_longer[seq_len] / total, "padding": 1 - total / (rows[seq_len] * seq_len)}
                          for seq_len in seq_lens] if total else []}


def report_lines(manifest):
    train = manifest["data"]["train"]["statistics"]
    yield from split_lines(manifest)
    yield ends_line(manifest["made_of"])
    yield f"{'tokens of a document':>22}  {'documents':>12}  {'tokens':>15}  share of the tokens"
    for row in train["histogram"]:
        share = row["tokens"] / train["tokens"]
        label = f"{row['from']:,} to {2 * row['from'] - 1:,}"
        yield f"{label:>22}  {row['documents']:>12,}  {row['tokens']:>15,}  {share:6.1%} {'#' * round(40 * share)}"
    yield (f"{'sequences of':>22}  {'an epoch':>12}  {'dropped tokens':>15}  {'in documents as long':>20}  "
           "padding if each had rows of its own")
    for row in train["sequences"]:
        yield (f"{row['length']:>22,}  {row['count']:>12,}  {row['dropped_tokens']:>15,}  {row['in_longer_documents']:>20.1%}  "
               f"{row['padding']:>35.1%}")
    yield from warning_lines(manifest)


def warning_lines(manifest):
    for warning in manifest.get("warnings", []):
        yield f"warning: {warning}"
    lost = manifest["documents"].get("lost", {"documents": 0})
    if lost["documents"]:
        yield (f"warning: the tokenizer has no token for {lost['characters']:,} characters of {lost['documents']:,} documents, which "
               "are lost; a byte-level BPE, byte_fallback or an unk_token would keep them")


def ends_line(made_of):
    end, begin = made_of["tokenizer"]["end_of_text"], made_of["tokenizer"]["begin_of_text"]
    begins = f"begins with {begin['token']!r} ({begin['id']}) and " if begin else ""
    return f"every document {begins}ends with {end['token']!r} ({end['id']})"


def split_lines(manifest):
    for split, data in manifest["data"].items():
        numbers = data["statistics"]
        size = data["files"][f"{split}.bin"]["bytes"]
        yield (f"{split}: {numbers['documents']:,} documents, {numbers['tokens']:,} tokens of {manifest['dtype']}, "
               f"{megabytes(size)}, the longest of {numbers['longest']:,} tokens")
    counts = manifest["documents"]
    total = sum(data["statistics"]["tokens"] for data in manifest["data"].values())
    yield (f"{megabytes(counts['text_bytes'])} of text, {counts['text_bytes'] / total:.2f} bytes a token; left out: "
           f"{counts['empty']:,} empty documents, {counts['bad']:,} that cannot be read")


def megabytes(count):
    return f"{count / 1e6:,.1f} MB"

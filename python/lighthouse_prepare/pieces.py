"""A sentencepiece model as a tokenizer.json: what transformers loads alike for every architecture.

It is made of what the model's file says, and compared with sentencepiece itself on texts that are hard to cut. One that
differs is none.
"""

import json
import random
import struct

# Fields of sentencepiece_model.proto.
PIECES, TRAINER, NORMALIZER = 1, 2, 3
MODEL_TYPE, WHITESPACE_AS_SUFFIX, BYTE_FALLBACK = 3, 24, 35
CHARSMAP, DUMMY_PREFIX, REMOVE_EXTRA, ESCAPE = 2, 3, 4, 5
UNIGRAM, BPE = 1, 2
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
SPACE = "\u2581"
NEVER = -1e5  # the score of a piece whose name in a text is text
HARD = ("", " ", "  ", "a", " a", "a ", "  two leading", "two  inside", "trailing  ", "a\nb", "\n", "\n\n", "tab\tx", "\r\n", "1 2 34",
        "caf\u00e9 \u2014 na\u00efve \U0001f600", "cafe\u0301", "\ufb01 ligature", "\uff21\uff22 \uff11", "\u00bd \u2122 \u2460",
        "<s>", "</s> text", "<unk>", "<0x0A>", SPACE, f"a{SPACE}b", f"{SPACE} ", "\u3000wide", "\u00a0hard", "\u200bzero", "\ufeffmark",
        "\u4f60\u597d\uff0c\u4e16\u754c", "\u0627\u0644\u0639\u0631\u0628\u064a\u0629", "\u0939\u093f\u0928\u094d\u0926\u0940",
        "\u1112\u1161\u11ab", "\ud55c\uad6d", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\x00\x01", "aaaaaaa", "        ", "-----", "((((")


class Inexact(Exception):
    """Why there is no such tokenizer.json."""


def convert(content, processor, end, begin):
    """{name: bytes} of the files; `processor`: sentencepiece's, of the same content. Raises Inexact, ImportError."""
    import tokenizers
    tokenizer = first_exact(tokenizers, content, processor)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end[1], "add_eos_token": False,
              "add_bos_token": bool(begin), "clean_up_tokenization_spaces": False,
              "split_special_tokens": True}  # their names in a text are text, as sentencepiece reads them
    if processor.unk_id() >= 0:
        config["unk_token"] = processor.id_to_piece(processor.unk_id())
    if begin:
        config["bos_token"] = begin[1]
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single=[begin[1], "$A"],
                                                                            special_tokens=[(begin[1], begin[0])])
    text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
    return {"tokenizer.json": text.encode(), "tokenizer_config.json": (json.dumps(config, indent=2) + "\n").encode()}


def first_exact(tokenizers, content, processor):
    """Characters that are composed of several are joined by the normalizer of tokenizers where they are short, and else by
    a step before it."""
    tokenizer = build(tokenizers, content, [])
    try:
        check_same(tokenizer, processor)
    except Inexact:
        tokenizer = build(tokenizers, content, [tokenizers.normalizers.NFC()])
        check_same(tokenizer, processor)
    return tokenizer


def build(tokenizers, content, before):
    model = fields(content)
    pieces = [parse_piece(piece) for piece in model.get(PIECES, [])]
    trainer, normalizer = (fields(model.get(field, [b""])[-1]) for field in (TRAINER, NORMALIZER))
    if flag(trainer, WHITESPACE_AS_SUFFIX, False) or not flag(normalizer, ESCAPE, True):
        raise Inexact("it writes spaces in another way")
    if any(kind == UNUSED for _, _, kind in pieces):
        raise Inexact("it has unused pieces")
    tokenizer = tokenizers.Tokenizer(make_model(tokenizers.models, pieces, trainer))
    add_tokens(tokenizers, tokenizer, pieces)
    prefix = flag(normalizer, DUMMY_PREFIX, True)
    tokenizer.normalizer = make_normalizer(tokenizers, normalizer, prefix, before)
    parts = [tokenizers.decoders.Replace(SPACE, " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
    tokenizer.decoder = tokenizers.decoders.Sequence(parts + [tokenizers.decoders.Strip(" ", 1, 0)] * prefix)
    return tokenizer


def make_model(models, pieces, trainer):
    unknown = [index for index, (_, _, kind) in enumerate(pieces) if kind == UNKNOWN]
    fallback = flag(trainer, BYTE_FALLBACK, False)
    kind = trainer.get(MODEL_TYPE, [UNIGRAM])[-1]
    if kind == UNIGRAM:
        scored = [(piece, score if kind in (NORMAL, USER_DEFINED) else NEVER) for piece, score, kind in pieces]
        return models.Unigram(scored, unk_id=unknown[0], byte_fallback=fallback)
    if kind != BPE:
        raise Inexact("it is neither of BPE nor a unigram model")
    vocabulary = {piece: index for index, (piece, _, _) in enumerate(pieces)}
    return models.BPE(vocabulary, merges_of(pieces), unk_token=pieces[unknown[0]][0], fuse_unk=True, byte_fallback=fallback)


def merges_of(pieces):
    """Those that end in a piece, for each piece: the one of the highest score first."""
    normal = {piece for piece, _, kind in pieces if kind in (NORMAL, USER_DEFINED)}
    ranked = sorted((piece for piece in enumerate(pieces) if piece[1][2] == NORMAL), key=lambda piece: (-piece[1][1], piece[0]))
    return [(text[:cut], text[cut:]) for _, (text, _, _) in ranked for cut in range(1, len(text))
            if text[:cut] in normal and text[cut:] in normal]


def add_tokens(tokenizers, tokenizer, pieces):
    def tokens(*kinds, special):
        return [tokenizers.AddedToken(piece, special=special, normalized=False) for piece, _, kind in pieces if kind in kinds]

    tokenizer.add_special_tokens(tokens(UNKNOWN, CONTROL, special=True))
    tokenizer.add_tokens(tokens(USER_DEFINED, special=False))


def make_normalizer(tokenizers, spec, prefix, before):
    steps, regex = [], tokenizers.Regex
    charsmap = spec.get(CHARSMAP, [b""])[-1]
    if charsmap:
        steps += before
        steps.append(tokenizers.normalizers.Precompiled(charsmap))
    if flag(spec, REMOVE_EXTRA, True):
        steps += [tokenizers.normalizers.Replace(regex(rf"\A +|[ {SPACE}]+\z"), ""),
                  tokenizers.normalizers.Replace(regex(" {2,}"), " ")]
    if prefix:
        steps.append(tokenizers.normalizers.Prepend(SPACE))
    return tokenizers.normalizers.Sequence([*steps, tokenizers.normalizers.Replace(" ", SPACE)])


def check_same(tokenizer, processor):
    tokenizer.encode_special_tokens = True
    for text in probes(processor):
        theirs, ours = processor.encode(text), tokenizer.encode(text, add_special_tokens=False).ids
        if theirs != ours:
            raise Inexact(f"it cuts {text[:40]!r} in another way")


def probes(processor):
    """Texts that are hard to cut, and pieces one behind another, in their order and in others."""
    pieces = [processor.id_to_piece(index).replace(SPACE, " ") for index in range(processor.vocab_size())]
    yield from HARD
    for begin in range(0, len(pieces), 64):
        yield "".join(pieces[begin:begin + 64])
    draw = random.Random(1)
    for _ in range(1000):
        yield "".join(draw.choices(pieces, k=16))


# ---- protocol buffers -----------------------------------------------------------------------------------------------

def fields(message):
    """{number: [values]} of a message: numbers, and bytes of what has a length or is a float."""
    found, place = {}, 0
    while place < len(message):
        key, place = varint(message, place)
        if key & 7 == 0:
            value, place = varint(message, place)
        else:
            size, place = {1: (8, place), 5: (4, place)}.get(key & 7) or varint(message, place)
            value, place = message[place:place + size], place + size
        found.setdefault(key >> 3, []).append(value)
    return found


def varint(message, place):
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def flag(message, field, default):
    return bool(message.get(field, [default])[-1])


def parse_piece(message):
    """(text, score, kind)"""
    piece = fields(message)
    [score] = struct.unpack("<f", piece.get(2, [bytes(4)])[-1])
    return piece[1][-1].decode(), score, piece.get(3, [NORMAL])[-1]

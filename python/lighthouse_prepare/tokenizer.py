"""What makes tokens of text: a tokenizer.json, a folder with one, a sentencepiece model, or bytes."""

import hashlib
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .errors import UsageError, check_there, cut, library, some
from .pieces import Inexact, convert
from .remarks import Lost, begin_remarks, end_remarks, may_lose

BYTES = "bytes"
# What models call the token at the end of a document, the more exact name first; among special tokens only.
ENDS = ("<|endoftext|>", "<|end_of_text|>", "<|end▁of▁sentence|>", "</s>", "<eos>", "[EOS]", "<|eos|>")
# As src/model/tokenizer_files.h has them.
FILES = re.compile(r"tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab\.json|vocab\.txt|merges\.txt|"
                   r"chat_template\.json|tekken\.json|.*\.tiktoken|.*\.model|.*\.jinja")


@dataclass(frozen=True)
class Tokenizer:
    """Knows what a worker needs to make an encoder; holds none itself, so that it can be sent to one."""
    kind: str           # bytes, tokenizers or sentencepiece
    content: bytes      # of tokenizer.json or of the model
    vocab_size: int     # the largest token and 1
    end: tuple          # (id, token) at the end of every document
    begin: tuple | None = None
    parse_special: bool = False
    files: dict = field(default_factory=dict)  # name -> bytes: what is kept beside the data
    loses: bool = False         # may have no token for a character, and leave it out
    warnings: tuple = ()        # what its user should know

    @property
    def sha256(self):
        return hashlib.sha256(self.content).hexdigest()

    @property
    def dtype(self):
        return np.dtype("<u2" if self.vocab_size <= 1 << 16 else "<i4")

    def encoder(self):
        """[str] -> ([list or array of tokens], without begin and end, [str that has no token] where that may be)."""
        return {BYTES: bytes_encoder, "tokenizers": json_encoder, "sentencepiece": piece_encoder}[self.kind](self)

    def describe(self):
        named = {"id": self.end[0], "token": self.end[1]}
        begin = self.begin and {"id": self.begin[0], "token": self.begin[1]}
        return {"kind": self.kind, "sha256": self.sha256, "vocab_size": self.vocab_size, "end_of_text": named,
                "begin_of_text": begin, "parse_special": self.parse_special}


def load_tokenizer(argument, end=None, begin=None, parse_special=False):
    """`end`, `begin`: tokens as text, or None for the one that the tokenizer declares, and for none."""
    if argument == BYTES:
        if end or begin or parse_special:
            raise UsageError("--tokenizer bytes: documents end with byte 0, and there are no special tokens; leave "
                             "--end-of-text, --begin-of-text and --parse-special out")
        return Tokenizer(BYTES, b"", 256, (0, "\0"))
    path = Path(argument)
    check_there(path, "--tokenizer ", f"; give a tokenizer.json, a folder with one, a sentencepiece model, or {BYTES}")
    model = find_model(path)
    content = read(model)
    beside = {file.name: read(file) for file in sorted(path.iterdir()) if FILES.fullmatch(file.name) and file.is_file()} \
        if path.is_dir() else {}
    load = load_pieces if model.suffix == ".model" else load_json
    return load(model, content, beside, end, begin, parse_special)


def find_model(path):
    if not path.is_dir():
        return path
    for name in ("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"):
        if (path / name).is_file():
            return path / name
    raise UsageError(f"--tokenizer {path}: has neither tokenizer.json nor tokenizer.model; save the tokenizer with "
                     "save_pretrained of transformers, which writes tokenizer.json")


def read(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"--tokenizer {path}: cannot be read: {error.strerror}") from error


# ---- bytes ----------------------------------------------------------------------------------------------------------

def bytes_encoder(_):
    return lambda texts: ([np.frombuffer(text.encode(), dtype=np.uint8) for text in texts], [])


# ---- tokenizer.json -------------------------------------------------------------------------------------------------

def load_json(path, content, beside, end, begin, parse_special):
    tokenizer = parse_json(path, content)
    vocabulary = tokenizer.get_vocab()
    if not vocabulary:
        raise UsageError(f"--tokenizer {path}: has no token at all; train it first")
    if getattr(tokenizer.model, "dropout", None):
        raise UsageError(f"--tokenizer {path}: its model has dropout {tokenizer.model.dropout}, which draws tokens at random; "
                         "set dropout to null in it")
    special = [token.content for _, token in sorted(tokenizer.get_added_tokens_decoder().items()) if token.special]
    config_path = path.with_name("tokenizer_config.json")
    config = read_config(config_path, beside)
    found = choose(path, "--end-of-text", end or declared(config_path, config, "eos_token") or known_end(special), vocabulary, special)
    started = choose(path, "--begin-of-text", begin, vocabulary, special) if begin else None
    warnings = [*([] if begin else begin_remarks(tokenizer, vocabulary)),
                *([] if end else end_remarks(config, beside, found[1], known_end(special)))]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config, "eos_token": found[1]}
    if started:
        config["bos_token"] = started[1]
    files = {**beside, "tokenizer.json": content, "tokenizer_config.json": json_file(config),
             "generation_config.json": generation_config(found, started)}
    return Tokenizer("tokenizers", content, max(vocabulary.values()) + 1, found, started, parse_special, files,
                     may_lose(tokenizer, library("tokenizers", "tokenizers")), tuple(warnings))


def parse_json(path, content):
    tokenizers = library("tokenizers", "tokenizers")
    try:
        return tokenizers.Tokenizer.from_str(content.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"--tokenizer {path}: is neither a tokenizer.json, which is UTF-8, nor named *.model as "
                         "sentencepiece's models are") from error
    except BaseException as error:  # the library raises nothing narrower, and its panics are no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise UsageError(f"--tokenizer {path}: is no tokenizer.json that tokenizers {tokenizers.__version__} reads: "
                         f"{cut(error)}") from error


def read_config(path, beside):
    if path.name not in beside:
        return {}
    try:
        config = json.loads(beside[path.name])
        json_file(config)  # half of a surrogate pair is a ValueError too
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--tokenizer {path}: is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"--tokenizer {path}: is not a JSON object")
    return config


def declared(path, config, key):
    """A token is its text, or an object with that text."""
    value = config.get(key)
    token = value.get("content") if isinstance(value, dict) else value
    if token is not None and not isinstance(token, str):
        raise UsageError(f"--tokenizer {path}: its {key} is {cut(json.dumps(value))}, which is no token's text; mend it")
    return token


def known_end(special):
    return next((token for token in ENDS if token in special), None)


def choose(path, option, token, vocabulary, special):
    listed = f"; its special tokens are {some(special)}" if special else \
        "; it has no special tokens: add one with tokenizers' add_special_tokens"
    if token is None:
        raise UsageError(f"--tokenizer {path}: does not say which token ends a text; name it with {option}{listed}")
    if token not in vocabulary:
        raise UsageError(f"{option} {cut(token)}: is no token of {path}{listed}")
    return vocabulary[token], token


def json_file(value):
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def generation_config(end, begin):
    """Of a model that is trained on the data: it stops where a document ends."""
    return json_file({"do_sample": True, "eos_token_id": end[0], **({"bos_token_id": begin[0]} if begin else {})})


def json_encoder(spec):
    tokenizer = library("tokenizers", "tokenizers").Tokenizer.from_str(spec.content.decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = not spec.parse_special  # then their names in a text are text
    lost = Lost(tokenizer) if spec.loses else None
    return lambda texts: ([encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)],
                          [lost.of(text) for text in texts] if lost else [])


# ---- sentencepiece --------------------------------------------------------------------------------------------------

def load_pieces(path, content, beside, end, begin, parse_special):
    if parse_special:
        raise UsageError("--parse-special: sentencepiece reads only its own user-defined symbols in text, always; leave it out")
    processor = make_processor(path, content)
    pieces = {processor.id_to_piece(index): index for index in range(processor.vocab_size())}
    special = [piece for piece, index in pieces.items() if processor.is_control(index)]
    default = processor.id_to_piece(processor.eos_id()) if processor.eos_id() >= 0 else None
    found = choose(path, "--end-of-text", end or default, pieces, special)
    started = choose(path, "--begin-of-text", begin, pieces, special) if begin else None
    files = {"tokenizer.model": content, **beside, **json_files(path, content, processor, found, started),
             "generation_config.json": generation_config(found, started)}
    return Tokenizer("sentencepiece", content, len(pieces), found, started, files=files)


def json_files(path, content, processor, end, begin):
    """What transformers loads; none, and a word of it, where that would not be the same."""
    try:
        return convert(content, processor, end, begin)
    except (Inexact, ImportError) as error:
        print(f"lighthouse-prepare: {path}: no tokenizer.json does the same ({error}): a model that is exported has no tokenizer "
              "for transformers", file=sys.stderr)
        return {}


def make_processor(path, content):
    sentencepiece = library("sentencepiece", "sentencepiece")
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(content)
    except (RuntimeError, OSError) as error:
        raise UsageError(f"--tokenizer {path}: is no sentencepiece model, or damaged: {error}") from error
    return processor


def piece_encoder(spec):
    processor = make_processor("the model", spec.content)
    return lambda texts: (processor.encode(texts, out_type=int, num_threads=1), [])


def check_vocabulary(tokenizer, vocab_size):
    """`vocab_size`: of the model, or None where any that int32 holds will do."""
    if tokenizer.vocab_size > 1 << 31:
        raise UsageError(f"--tokenizer: has a token {tokenizer.vocab_size - 1}; the largest that a data set holds is "
                         f"{(1 << 31) - 1}")
    if vocab_size is not None and tokenizer.vocab_size > vocab_size:
        raise UsageError(f"--vocab-size {vocab_size}: the tokenizer has tokens up to {tokenizer.vocab_size - 1}, which such a "
                         f"model does not hold; give the model a vocabulary of at least {tokenizer.vocab_size}, or another "
                         "tokenizer")

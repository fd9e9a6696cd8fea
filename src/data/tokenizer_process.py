"""Between text and tokens, for src/data/tokenizer.cpp: a JSON request a line, and a JSON answer a line.

The first line says {"size": of the vocabulary}. Then {"encode": text} is answered by {"tokens": [...]}, with what the
tokenizer itself puts before a text; {"document": text} by the same of a text in which names of special tokens are text;
{"decode": [tokens]} by {"text": text}. What cannot be done is answered by {"error": why}.
"""
import json
import os
import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program that started this one ends it
sys.path = [path for path in sys.path if path]  # not what lies where the command is run


def load_json(path):
    import tokenizers
    tokenizer = tokenizers.Tokenizer.from_file(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(text, is_document=False):
        tokenizer.encode_special_tokens = is_document
        return tokenizer.encode(text).ids

    return tokenizer.get_vocab_size(), encode, lambda tokens: tokenizer.decode(tokens, skip_special_tokens=False)


def load_pieces(path):
    import sentencepiece
    processor = sentencepiece.SentencePieceProcessor(model_file=path)
    return processor.vocab_size(), lambda text, is_document=False: processor.encode(text), processor.decode


def load(folder):
    for name, loader in (("tokenizer.json", load_json), ("tokenizer.model", load_pieces)):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return loader(path)
    raise ValueError(f"'{folder}' has neither tokenizer.json nor tokenizer.model")


def answer(request, size, encode, decode):
    if "encode" in request:
        return {"tokens": encode(request["encode"])}
    if "document" in request:
        return {"tokens": encode(request["document"], is_document=True)}
    return {"text": decode([token for token in request["decode"] if token < size])}  # a vocabulary may be padded


def guarded(function, *arguments):
    try:
        return function(*arguments)
    except ImportError as error:
        return {"error": f"{sys.executable} has no {error.name}; pip install {error.name}, or name a Python that has it in "
                         "LIGHTHOUSE_PYTHON"}
    except Exception as error:  # the libraries raise nothing narrower
        return {"error": str(error)}


def say(value):
    print(json.dumps(value), flush=True)


loaded = guarded(load, sys.argv[1])
if isinstance(loaded, dict):
    say(loaded)
else:
    say({"size": loaded[0]})
    for line in sys.stdin:
        say(guarded(answer, json.loads(line), *loaded))

"""What a tokenizer.json does that its user may not expect, and that does not show in the tokens."""

import json

from .errors import cut

NEVER_IN_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}


def may_lose(tokenizer, library):
    """Whether its model may leave characters out: a BPE without a token for what is unknown does so in silence, unless it has
    the 243 bytes that occur in UTF-8."""
    model = tokenizer.model
    if not isinstance(model, library.models.BPE) or model.unk_token is not None:
        return False
    if model.byte_fallback:
        needed = {f"<0x{byte:02X}>" for byte in set(range(256)) - NEVER_IN_UTF8}
    elif b'"ByteLevel"' in state(tokenizer.pre_tokenizer) + state(tokenizer.normalizer):
        needed = set(library.pre_tokenizers.ByteLevel.alphabet()) - set(map(chr, NEVER_IN_UTF8))  # which stand for themselves
    else:
        return True
    return not needed <= tokenizer.get_vocab().keys() or bool(model.continuing_subword_prefix or model.end_of_word_suffix)


class Lost:
    """The characters that a BPE has no token for. Asked of each character alone, and once: the offsets that the library tells
    are wrong behind a lost one."""

    def __init__(self, tokenizer):
        self.tokenizer, self.known = tokenizer, {}

    def of(self, text):
        characters = {character for character in set(text) if self.is_lost(character)}
        return "".join(character for character in text if character in characters) if characters else ""

    def is_lost(self, character):
        if character not in self.known:
            self.known[character] = self.ask(character)
        return self.known[character]

    def ask(self, character):
        """Not of what the tokenizer leaves out on purpose before its model comes: blanks, often."""
        tokenizer, model = self.tokenizer, self.tokenizer.model
        normal = tokenizer.normalizer.normalize_str(character) if tokenizer.normalizer else character
        parts = tokenizer.pre_tokenizer.pre_tokenize_str(normal) if tokenizer.pre_tokenizer else [(normal, None)]
        wanted = sum(len(part) for part, _ in parts)
        tokens = tokenizer.encode(character, add_special_tokens=False).tokens
        if model.byte_fallback:  # all bytes of a character, or none
            return wanted > 0 and not tokens
        return sum(len(token.removeprefix(model.continuing_subword_prefix or "").removesuffix(model.end_of_word_suffix or ""))
                   for token in tokens) < wanted


def state(part):
    """Of a part of a tokenizer, as JSON."""
    return part.__getstate__() if part else b""


def begin_remarks(tokenizer, vocabulary):
    """Where documents are to begin with no token."""
    first = put_first(json.loads(state(tokenizer.post_processor) or "{}"))
    if first in vocabulary:
        yield (f"the tokenizer puts {cut(first)} before a text, and no document begins with it: a model trained on them is run and exported "
               f"without it; --begin-of-text '{cut(first)}' puts it there")


def put_first(processor):
    """The token that a post-processor puts before a text; None where there is none."""
    if processor.get("type") == "Sequence":
        return next(filter(None, map(put_first, processor["processors"])), None)
    if processor.get("type") == "TemplateProcessing":
        token = processor["single"][0].get("SpecialToken") if processor["single"] else None
        return next(iter(processor["special_tokens"].get(token["id"], {}).get("tokens", [])), None) if token else None
    return processor["cls"][0] if "cls" in processor else None


def end_remarks(config, beside, end, known):
    """Where the tokenizer itself says how documents end. `known`: a special token that says the same by its name."""
    chats = "chat_template" in config or any(name.startswith("chat_template") for name in beside)
    if chats and known not in (None, end):
        yield (f"documents end with {cut(end)}, as the tokenizer says, which is made for chats; it also has {cut(known)}, with "
               f"which a text may rather end: --end-of-text '{cut(known)}'")

"""Where documents begin in the rows of a batch, out of what programs say of it.

    position_ids    a document begins where a position is not one more than the one before, as in transformers
    cu_seq_lens_q   offsets of the documents of all rows, laid one after another
    seq_idx         the number of each token's document
    attention_mask  1 for tokens, 0 for padding. The padding at the end of a row is a document of its own, whose output nobody
                    looks at. Or the number of each token's document, from 1 on

Offsets here are those of the rows laid one after another, [0, ..., batch * N], those of the rows among them. Each tensor is
read once in a forward, not in each layer.
"""

from itertools import pairwise

import torch

from ..checks import integer
from ..errors import require
from ..host_copy import HostCopy


def changes(numbers):
    """Which tokens [batch, N] begin a run of equal numbers."""
    return torch.nn.functional.pad(numbers[:, 1:] != numbers[:, :-1], (1, 0), value=True)


def read_changes(numbers, batch):
    starts = changes(numbers).expand(batch, -1)
    return [*starts.flatten().nonzero().flatten().tolist(), starts.numel()]


def read_offsets(position_ids, batch):
    return read_changes(position_ids - torch.arange(position_ids.shape[1], device=position_ids.device), batch)


def read_hidden(mask):
    """[(begin, end), ...] of the runs of hidden tokens, each within a row."""
    mask = mask.cpu().bool()
    return [run for run in pairwise(read_changes(mask, len(mask))) if not mask.flatten()[run[0]]]


offsets_of, numbers_of, hidden_of = HostCopy(read_offsets), HostCopy(read_changes), HostCopy(read_hidden)
values_of = {name: HostCopy(torch.Tensor.tolist) for name in ("cu_seq_lens_q", "cu_seq_lens_k")}


def place(token, seq_len):
    return f"token {token % seq_len} of row {token // seq_len}"


def check_numbers(name, x, batch, seq_len):
    """Of what says something of each token; None is fine."""
    if x is None:
        return
    require(isinstance(x, torch.Tensor), f"lighthouse: {name} is a {type(x).__name__}; it must be a tensor: torch.as_tensor({name}) makes "
            "one")
    require(x.shape in ((batch, seq_len), (1, seq_len)), f"lighthouse: {name} is {list(x.shape)}; it must be {[batch, seq_len]}, as the "
            "tokens are")


def check_values(**said):
    for name, x in said.items():
        require(not (isinstance(x, torch.Tensor) and x.device.type == "meta"), f"lighthouse: {name} is on meta, where tensors have no "
                "values that would say where documents begin; for rows of one document each call prepare(model, packed=False), and leave out "
                "attention_mask and what else tells documents apart")


@torch.compiler.disable
def documents_of(batch, seq_len, *, position_ids=None, cu_seq_lens_q=None, cu_seq_lens_k=None, seq_idx=None, mask=None):
    """Offsets of the documents within each row, [[0, ..., N], ...]; None where each row is one document.

    Raises:
        ValueError: two of the arguments disagree, or the mask hides a part of a document.
    """
    check_values(attention_mask=mask, position_ids=position_ids, cu_seq_lens_q=cu_seq_lens_q, cu_seq_lens_k=cu_seq_lens_k, seq_idx=seq_idx)
    check_numbers("seq_idx", seq_idx, batch, seq_len)
    rows = list(range(0, batch * seq_len + 1, seq_len))
    hidden = [] if mask is None else hidden_of(mask)
    said = {}
    if position_ids is not None and position_ids.dim() == 2:
        said["position_ids"] = offsets_of(position_ids, batch)
    if seq_idx is not None:
        said["seq_idx"] = numbers_of(seq_idx, batch)
    if cu_seq_lens_q is not None:
        said["cu_seq_lens_q"] = checked("cu_seq_lens_q", cu_seq_lens_q, rows)
    if cu_seq_lens_k is not None and cu_seq_lens_k is not cu_seq_lens_q:
        said["cu_seq_lens_k"] = checked("cu_seq_lens_k", cu_seq_lens_k, rows)
    offsets = agreed({name: padding_apart(offsets, hidden, seq_len) for name, offsets in said.items()},
                     padding_apart(rows, hidden, seq_len), seq_len)
    check_hidden(offsets, hidden, seq_len, rows[-1])
    if offsets == rows:
        return None
    return [[offset - row for offset in offsets if row <= offset <= row + seq_len] for row in rows[:-1]]


def checked(name, offsets, rows):
    """Offsets that a program gives, a tensor or a list, without empty documents."""
    check_values(**{name: offsets})
    shape = getattr(offsets, "shape", (0,))
    require(len(shape) == 1, f"lighthouse: {name} is of shape {list(shape)}; it must be 1-dimensional, the token offsets 0, ..., "
            f"{rows[-1]}")
    given = values_of[name](offsets) if isinstance(offsets, torch.Tensor) else offsets
    offsets = [integer("lighthouse", f"an offset of {name}", offset) for offset in given]
    text = str(offsets) if len(offsets) <= 8 else f"[{', '.join(map(str, offsets[:4]))}, ..., {offsets[-1]}]"
    require(offsets[:1] == [0] and offsets[-1] == rows[-1] and offsets == sorted(offsets), f"lighthouse: {name} is {text}; "
            f"it must begin at 0, not fall, and end at {rows[-1]}, the tokens of the batch")
    across = set(rows) - set(offsets)
    require(not across, f"lighthouse: {name} is {text}, in which a document goes on from one row of the batch to the next "
            f"(at {min(across, default=0)}); put documents into one row")
    return sorted(set(offsets))


def padding_apart(offsets, hidden, seq_len):
    """With the hidden end of each row as one document."""
    ends = [(begin, end) for begin, end in hidden if end % seq_len == 0]
    return sorted({offset for offset in offsets if not any(begin < offset < end for begin, end in ends)} | {begin for begin, _ in ends})


def agreed(said, plain, seq_len):
    """What {name: offsets} say alike, leaving out those that tell no documents apart."""
    said = {name: offsets for name, offsets in said.items() if offsets != plain}
    for (one, offsets), (other, others) in pairwise(said.items()):
        require(offsets == others, f"lighthouse: {one} and {other} disagree whether a document begins at "
                f"{place(min(set(offsets) ^ set(others), default=0), seq_len)}; leave one of them out")
    return next(iter(said.values()), plain)


def check_hidden(offsets, hidden, seq_len, num_tokens):
    part = next((run for run in hidden if not set(run) <= set(offsets)), None)
    if part is None:
        return
    raise ValueError(f"lighthouse: attention_mask hides {sum(end - begin for begin, end in hidden)} of {num_tokens} tokens, those from "
                     f"{place(part[0], seq_len)} on in front of others; with attn_implementation='lighthouse' padding must come last "
                     "(tokenizer.padding_side = 'right'), or leave none: pack documents into one row (DataCollatorWithFlattening). To "
                     "generate, call model.set_attn_implementation('sdpa') first")


@torch.compiler.disable
def without_numbers(attention_mask, position_ids):
    """(attention_mask, position_ids) in the words of transformers, which makes bool of every mask [batch, N]: no mask where
    nothing is hidden, and position_ids that begin again where there were document numbers.

    Raises:
        ValueError: position_ids disagree, a document has two parts, or values are negative.
    """
    check_values(attention_mask=attention_mask)
    numbers = attention_mask.float() if attention_mask.dtype == torch.bool else attention_mask
    low, high, *other = torch.stack([*torch.aminmax(numbers), *fractions(numbers)]).tolist()
    require(not any(other), "lighthouse: attention_mask has values that are no integers; it must have 1 for tokens and 0 for padding, or "
            "the number of each token's document, from 1 on")
    require(low >= 0, f"lighthouse: attention_mask has values from {low} to {high}; it must have 1 for tokens and 0 for padding, "
            "or the number of each token's document, from 1 on")
    if high > 1:
        position_ids = positions_of(attention_mask, position_ids)
    return None if low > 0 else attention_mask, position_ids


def fractions(numbers):
    """[1] where values are no integers, [0] where all are; [] of a type that has none other."""
    return [(numbers.frac() != 0).any().to(numbers.dtype)] if numbers.is_floating_point() else []


def positions_of(numbers, position_ids):
    batch, seq_len = numbers.shape
    offsets, hidden = read_changes(numbers, batch), read_hidden(numbers)
    first = numbers.flatten()[offsets[:-1]].tolist()
    seen = set()
    for begin, number in zip(offsets, first):
        require(number == 0 or (begin // seq_len, number) not in seen, f"lighthouse: attention_mask has document {number} in two "
                f"parts, the second from {place(begin, seq_len)} on; the tokens of a document must be neighbours")
        seen.add((begin // seq_len, number))
    if position_ids is not None:
        told = read_offsets(position_ids, batch)
        agreed({"attention_mask": padding_apart(offsets, hidden, seq_len), "position_ids": padding_apart(told, hidden, seq_len)},
               [], seq_len)
        return position_ids
    return positions_from(changes(numbers))


@torch.compiler.disable
def positions_in(batch, seq_len, device, cu_seq_lens_q, seq_idx):
    """position_ids [batch, N] that begin again where these say that a document begins, as alone; None where nothing is said."""
    check_values(cu_seq_lens_q=cu_seq_lens_q, seq_idx=seq_idx)
    if cu_seq_lens_q is not None:
        offsets = checked("cu_seq_lens_q", cu_seq_lens_q, list(range(0, batch * seq_len + 1, seq_len)))
        starts = torch.zeros(batch * seq_len, dtype=torch.bool, device=device)
        starts[offsets[:-1]] = True
        return positions_from(starts.view(batch, seq_len))
    return None if seq_idx is None else positions_from(changes(seq_idx).expand(batch, -1))


def positions_from(starts):
    index = torch.arange(starts.shape[1], device=starts.device)
    return index - torch.where(starts, index, 0).cummax(1).values

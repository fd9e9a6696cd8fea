"""transformers: documents packed into a row, however they are told, and padding; what contradicts is refused."""

import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5")
from huggingface_models import (LENGTHS, MODELS, NUMBERS, OFFSETS, ONE_TILE, POSITIONS, logits_of, make, noise,  # noqa: E402
                                prepared, tokens, warnings_of)
from lighthouse_attention import huggingface  # noqa: E402
from lighthouse_attention.huggingface import documents  # noqa: E402

ROW = torch.arange(128)[None]
CU = torch.tensor(OFFSETS, dtype=torch.int32)
ALL = torch.ones(1, 128, dtype=torch.long)
TOLD_BY = {
    "position_ids": dict(position_ids=POSITIONS),
    "position_ids and a mask of ones": dict(position_ids=POSITIONS, attention_mask=ALL),
    "position_ids and a bool mask": dict(position_ids=POSITIONS, attention_mask=ALL.bool()),
    "position_ids and a float mask": dict(position_ids=POSITIONS, attention_mask=ALL.float()),
    "positions that begin at 7": dict(position_ids=POSITIONS + 7),
    "cu_seq_lens": dict(cu_seq_lens_q=CU, cu_seq_lens_k=CU, max_length_q=77, max_length_k=77),
    "cu_seq_lens and position_ids": dict(cu_seq_lens_q=CU, cu_seq_lens_k=CU.clone(), position_ids=POSITIONS),
    "cu_seq_lens and a mask of ones": dict(cu_seq_lens_q=CU, attention_mask=ALL),
    "cu_seq_lens as a list, with an empty document": dict(cu_seq_lens_q=[0, 50, 50, 51, 128]),
    "numbers": dict(attention_mask=NUMBERS),
    "numbers, int32": dict(attention_mask=NUMBERS.int()),
    "numbers from 4 on": dict(attention_mask=NUMBERS + 3),
    "numbers and position_ids": dict(attention_mask=NUMBERS, position_ids=POSITIONS),
    "seq_idx": dict(seq_idx=NUMBERS.int() - 1),
}


@pytest.mark.parametrize("kind", MODELS)
def test_documents_are_apart(kind):
    """However they are told, the logits are those of each document alone, and no token moves another document."""
    model, row = prepared(kind), noise(1)
    other = row.clone()
    other[0, 7] = 3 + (other[0, 7] - 2) % 58
    for way, inputs in TOLD_BY.items():
        together = logits_of(model, input_ids=row, **inputs)
        moved = logits_of(model, input_ids=other, **inputs)
        # Alone, but at the same positions, as their rounding in RoPE decides ties among equal tokens of layer 0.
        positions = inputs.get("position_ids", POSITIONS)
        for ours, part, told in zip(*(x.split(LENGTHS, 1) for x in (together, row, positions))):
            alone = logits_of(model, input_ids=part, position_ids=told)
            assert (ours - alone).abs().max() <= 1e-5, way  # matrix products of other shapes round differently, on logits below 1
        assert torch.equal(moved[:, 50:], together[:, 50:]), way


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_masks_by_position_and_of_the_inner_model(kind):
    model = prepared(kind).eval()
    expected = logits_of(model, input_ids=noise(1), attention_mask=NUMBERS)
    with torch.no_grad():
        assert torch.equal(model(noise(1), NUMBERS, use_cache=False).logits, expected)
        assert torch.equal(model.lm_head(model.model(noise(1), NUMBERS, use_cache=False)[0]), expected)
        embedded = model.get_input_embeddings()(noise(1))
        assert torch.equal(model(inputs_embeds=embedded, attention_mask=NUMBERS, use_cache=False).logits, expected)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_each_row_is_as_it_is_alone(kind):
    """A row's documents and budget do not depend on the rows that come with it."""
    model, rows = prepared(kind), noise(3)
    numbers = torch.cat([NUMBERS, torch.ones(1, 128).long(), NUMBERS.flip(1)])
    positions = documents.positions_of(numbers, None)
    for inputs in (dict(position_ids=positions), dict(attention_mask=numbers)):
        together = logits_of(model, input_ids=rows, **inputs)
        for row in range(3):
            alone = logits_of(model, input_ids=rows[row:row + 1], **{name: x[row:row + 1] for name, x in inputs.items()})
            assert (together[row:row + 1] - alone).abs().max() <= 1e-5
    offsets = torch.tensor([0, 50, 51, 128, 256, 333, 334, 384], dtype=torch.int32)
    assert (logits_of(model, input_ids=rows, cu_seq_lens_q=offsets, position_ids=positions) - together).abs().max() <= 1e-5


def padded(lengths, seq_len=128):
    return (torch.arange(seq_len) < torch.tensor(lengths)[:, None]).long()


@pytest.mark.parametrize("kind", MODELS)
def test_padding_at_the_end_is_a_document_of_its_own(kind):
    """Rows of uneven lengths give what they give without padding, and what the padding holds does not matter."""
    model, rows, lengths = prepared(kind), noise(3), [128, 100, 37]
    mask = padded(lengths)
    for inputs in (dict(), dict(position_ids=(mask.cumsum(1) - 1).clamp(min=0)), dict(position_ids=(mask.cumsum(1) - 1) * mask)):
        together = logits_of(model, input_ids=rows, attention_mask=mask, **inputs)
        for row, length in enumerate(lengths):
            alone = logits_of(model, input_ids=rows[row:row + 1, :length])
            assert (together[row:row + 1, :length] - alone).abs().max() <= 1e-5
    other = torch.where(mask.bool(), rows, 0)
    assert torch.equal(logits_of(model, input_ids=other, attention_mask=mask)[mask.bool()],
                       logits_of(model, input_ids=rows, attention_mask=mask)[mask.bool()])


PADDED_ROWS = {
    "position_ids": dict(attention_mask=padded([100]), position_ids=POSITIONS),
    "position_ids of 0 in the padding": dict(attention_mask=padded([100]), position_ids=POSITIONS * padded([100])),
    "cu_seq_lens": dict(attention_mask=padded([100]), cu_seq_lens_q=CU),
    "cu_seq_lens with the padding": dict(attention_mask=padded([100]), cu_seq_lens_q=[0, 50, 51, 100, 128]),
    "numbers": dict(attention_mask=NUMBERS * padded([100])),
    "numbers and position_ids": dict(attention_mask=NUMBERS * padded([100]), position_ids=POSITIONS * padded([100])),
}


@pytest.mark.parametrize("way", PADDED_ROWS)
def test_padding_after_packed_documents(way):
    model, row = prepared("qwen3"), noise(1)
    together = logits_of(model, input_ids=row, **PADDED_ROWS[way])
    for begin, end in [(0, 50), (50, 51), (51, 100)]:
        assert (together[:, begin:end] - logits_of(model, input_ids=row[:, begin:end])).abs().max() <= 1e-5


def test_padding_trains():
    """Through dense layers too, with gradients that are finite and those of the rows without padding."""
    gradients = []
    for width in (128, 100):
        model = prepared("qwen3", full_attention_layers=[0]).train()
        labels = torch.where(padded([100, 100]).bool(), noise(), -100)[:, :width]
        model(input_ids=noise()[:, :width], labels=labels, attention_mask=padded([100, 100])[:, :width], use_cache=False).loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert (gradients[0] - gradients[1]).abs().max() <= 1e-5


@pytest.mark.parametrize("reentrant", [False, True])
def test_documents_are_computed_again_for_backward(reentrant):
    """Gradient checkpointing: scores and documents of the second time are those of the first."""
    gradients = []
    for checkpointing in (False, True):
        model = prepared("qwen3").train()
        if checkpointing:
            model.gradient_checkpointing_enable(dict(use_reentrant=reentrant))
        for inputs in (dict(position_ids=POSITIONS), dict(attention_mask=NUMBERS), dict(attention_mask=padded([100]))):
            model(input_ids=noise(1), labels=noise(1), use_cache=False, **inputs).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(map(torch.equal, *gradients))


def test_documents_compile():
    torch.compiler.reset()
    row = noise(1)
    model = huggingface.prepare(make("qwen3", num_hidden_layers=1), **ONE_TILE)
    compiled = torch.compile(model, backend="aot_eager")
    for inputs in (dict(), dict(position_ids=POSITIONS), dict(attention_mask=NUMBERS), dict(attention_mask=padded([100]))):
        assert torch.equal(logits_of(compiled, input_ids=row, **inputs), logits_of(model, input_ids=row, **inputs))


def test_positions_are_read_once_a_forward(monkeypatch):
    read = []
    monkeypatch.setattr(documents.offsets_of, "read", lambda *arguments: read.append(1) or documents.read_offsets(*arguments))
    model = huggingface.prepare(make(num_hidden_layers=3), **ONE_TILE)
    positions = POSITIONS.clone()
    for batch in (1, 2, 2):
        model(input_ids=tokens(batch), position_ids=positions, use_cache=False)
    assert len(read) == 2
    before = model(input_ids=tokens(1), position_ids=positions, use_cache=False).logits
    positions.copy_(torch.cat([torch.arange(length) for length in (64, 64)])[None])  # as for a captured graph: the same tensor
    after = model(input_ids=tokens(1), position_ids=positions, use_cache=False).logits
    assert len(read) == 4 and not torch.equal(before, after)


def test_dense_layers_keep_documents_apart_too():
    model = prepared(full_attention_layers=[0, 1])
    sdpa = make(attention="sdpa")
    inputs = dict(input_ids=tokens(1), position_ids=POSITIONS)
    assert (logits_of(model, **inputs) - logits_of(sdpa, **inputs)).abs().max() <= 1e-5


def test_a_model_that_was_switched_says_what_it_does_not_see(monkeypatch):
    """transformers makes bool of the mask before anyone looks, unless the model has the hook of `prepare`."""
    model = make(attention="sdpa")
    model.set_attn_implementation("lighthouse")
    messages = warnings_of(lambda: logits_of(model, input_ids=noise(1), attention_mask=NUMBERS), monkeypatch)
    assert len(messages) == 1 and "no document numbers" in messages[0] and "prepare(model)" in messages[0]
    assert not warnings_of(lambda: logits_of(make(), input_ids=noise(1), attention_mask=NUMBERS), monkeypatch)
    huggingface.prepare(model, **ONE_TILE)
    expected = logits_of(prepared(), input_ids=noise(1), attention_mask=NUMBERS)
    assert not warnings_of(lambda: logits_of(model, input_ids=noise(1), attention_mask=NUMBERS), monkeypatch)
    assert torch.equal(logits_of(model, input_ids=noise(1), attention_mask=NUMBERS), expected)


def hole(begin, end):
    mask = torch.ones(1, 128, dtype=torch.long)
    mask[:, begin:end] = 0
    return mask


CONTRADICTIONS = {
    "cu_seq_lens, position_ids": (dict(cu_seq_lens_q=CU, position_ids=torch.cat([ROW[:, :40], ROW[:, :88]], 1)),
                                  "position_ids and cu_seq_lens_q disagree whether a document begins at token 40 of row 0"),
    "cu_seq_lens, fewer position_ids": (dict(cu_seq_lens_q=CU, position_ids=torch.cat([ROW[:, :50], ROW[:, :78]], 1)),
                                        "disagree whether a document begins at token 51"),
    "cu_seq_lens of q and k": (dict(cu_seq_lens_q=CU, cu_seq_lens_k=torch.tensor([0, 60, 128])),
                               "cu_seq_lens_q and cu_seq_lens_k disagree whether a document begins at token 50"),
    "cu_seq_lens, too short": (dict(cu_seq_lens_q=torch.tensor([0, 50, 120])), "is \\[0, 50, 120\\].*end at 128"),
    "cu_seq_lens, falling": (dict(cu_seq_lens_q=torch.tensor([0, 60, 50, 128])), "not fall"),
    "cu_seq_lens, empty": (dict(cu_seq_lens_q=[]), "must begin at 0"),
    "numbers, position_ids": (dict(attention_mask=NUMBERS, position_ids=torch.cat([ROW[:, :40], ROW[:, :88]], 1)),
                              "attention_mask and position_ids disagree whether a document begins at token 40"),
    "numbers, one document": (dict(attention_mask=NUMBERS, position_ids=ROW), "disagree whether a document begins at token 50"),
    "numbers, cu_seq_lens": (dict(attention_mask=NUMBERS, cu_seq_lens_q=torch.tensor([0, 60, 128])),
                             "position_ids and cu_seq_lens_q disagree"),
    "numbers in two parts": (dict(attention_mask=torch.cat([NUMBERS[:, :100], ALL[:, :28]], 1)),
                             "document 1 in two parts, the second from token 100 of row 0"),
    "numbers, too few": (dict(attention_mask=NUMBERS[:, :100]), r"attention_mask is \[1, 100\]; it must be \[1, 128\]"),
    "numbers of no row": (dict(attention_mask=NUMBERS[0]), r"attention_mask is \[128\]; it must be \[1, 128\]"),
    "numbers of other rows": (dict(attention_mask=NUMBERS.expand(3, -1)), r"attention_mask is \[3, 128\]; it must be \[1, 128\]"),
    "negative numbers": (dict(attention_mask=-NUMBERS), "values from -3 to -1"),
    "padding in front": (dict(attention_mask=hole(0, 3)), "hides 3 of 128 tokens, those from token 0 of row 0.*padding_side"),
    "a hole": (dict(attention_mask=hole(60, 70)), "hides 10 of 128 tokens, those from token 60"),
    "a hole across documents": (dict(attention_mask=hole(40, 51), position_ids=POSITIONS), "hides 11 of 128 tokens"),
    "packed=False": (dict(position_ids=POSITIONS, attention_mask=ALL), None),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_contradictions_are_refused(what):
    inputs, message = CONTRADICTIONS[what]
    model = prepared(packed=message is not None)
    with pytest.raises(ValueError, match=message or "packed=False"):
        logits_of(model, input_ids=noise(1), **inputs)


@pytest.mark.parametrize("told", [dict(attention_mask=NUMBERS), dict(position_ids=POSITIONS), dict(seq_idx=NUMBERS.int())], ids=list)
def test_one_row_of_numbers_is_that_of_all_rows(told):
    model = prepared("qwen3")
    expected = torch.cat([logits_of(model, input_ids=row[None], position_ids=POSITIONS) for row in noise(2)])
    assert (logits_of(model, input_ids=noise(2), **told) - expected).abs().max() <= 1e-5


def test_a_document_does_not_cross_rows():
    with pytest.raises(ValueError, match="goes on from one row of the batch to the next \\(at 128\\)"):
        logits_of(prepared(), input_ids=noise(2), cu_seq_lens_q=[0, 100, 256])


def test_padding_between_documents():
    model, row = prepared("qwen3"), noise(1)
    together = logits_of(model, input_ids=row, attention_mask=hole(50, 51), position_ids=POSITIONS)
    assert (together[:, 51:] - logits_of(model, input_ids=row[:, 51:])).abs().max() <= 1e-5

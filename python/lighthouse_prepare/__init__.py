"""lighthouse-prepare: text as Megatron-LM data sets that `lighthouse train` reads (docs/data.md).

A package of its own beside lighthouse_attention, because it needs neither torch nor the operators.
"""

"""The name of the attention carries the options of the model that it is read from.

Trainers that load a reference again from the base folder (trl's for DPO, KTO, GRPO and RLOO) copy one thing of the model that is
trained: config._attn_implementation. What is read there, of a configuration with options under lighthouse, equals "lighthouse" and
has the options; a model that is built by that name has them in its own configuration, in place of those of the folder.
"""

import copy
import weakref

import torch
import transformers

from .options import NAME, unchecked

traced = weakref.WeakValueDictionary()  # configurations that torch.compile has read: it knows and expects no other kind of str


class Named(str):
    """The name of the attention, with `options`."""

    options = None


def read(config):
    name = config._attn_implementation_internal
    if name != NAME:
        return name
    if torch.compiler.is_compiling():
        return NAME
    if torch._guards.TracingContext.try_get() is not None:
        traced[id(config)] = config
    if id(config) in traced:
        return NAME
    parts = (config, *(getattr(config, part, None) for part in config.sub_configs))
    options = getattr(name, "options", None) or next(filter(None, map(unchecked, parts)), None)
    return with_options(options) if options else NAME


def with_options(options):
    name = Named(NAME)
    name.options = copy.deepcopy(options)
    return name


def settle(config):
    """Of a configuration that was given such a name: the options are where they belong, and the name is a name."""
    options = getattr(config._attn_implementation_internal, "options", None)
    if options is not None:
        config._attn_implementation_internal = NAME
        if not config.sub_configs:
            config.lighthouse = copy.deepcopy(options)


def install():
    transformers.PreTrainedConfig._attn_implementation = transformers.PreTrainedConfig._attn_implementation.getter(read)

// The values of configuration keys that are one of a few words: each is read once, in the key table, and is an enum
// from there on.
#pragma once

#include "lighthouse/scorer.h"
#include "lighthouse/words.h"

namespace lighthouse {

/// As transformers names them.
enum class ModelFamily { kLlama, kMistral, kQwen2, kQwen3, kSmolLm3 };
constexpr std::array<std::string_view, 5> words_of(ModelFamily /*type*/) {
  return {"llama", "mistral", "qwen2", "qwen3", "smollm3"};
}

enum class RopeScaling { kNone, kLinear, kDynamic, kYarn, kLlama3 };
constexpr std::array<std::string_view, 5> words_of(RopeScaling /*type*/) {
  return {"none", "linear", "dynamic", "yarn", "llama3"};
}

/// Of a model that training goes on from.
enum class InitialRope {
  kKept,     ///< as its config.json has it
  kChanged,  ///< as [model] has it, for another context than the model was made for
};
constexpr std::array<std::string_view, 2> words_of(InitialRope /*type*/) { return {"kept", "changed"}; }

/// Of stage 1: Lighthouse attention, or a control in its place.
enum class AttentionMethod {
  kLighthouse,
  kShort,   ///< dense, in sequences of `span` tokens
  kWindow,  ///< causal attention to the latest `span` tokens
};
constexpr std::array<std::string_view, 3> words_of(AttentionMethod /*type*/) {
  return {"lighthouse", "short", "window"};
}

/// In what order the gradients of micro-batches are added.
enum class Accumulation {
  kSequence,  ///< one after another, in one set of gradients
  kTree,      ///< as tree_schedule says, in up to 1 + ceil(log2(count)) sets
};
constexpr std::array<std::string_view, 2> words_of(Accumulation /*type*/) { return {"sequence", "tree"}; }

/// Of matrix products and attention; weights and norms are always fp32.
enum class Precision { kFp32, kBf16 };
constexpr std::array<std::string_view, 2> words_of(Precision /*type*/) { return {"fp32", "bf16"}; }

/// Where to run.
enum class DeviceChoice { kAuto, kCpu, kCuda };
constexpr std::array<std::string_view, 3> words_of(DeviceChoice /*type*/) { return {"auto", "cpu", "cuda"}; }

/// What backward computes again instead of keeping it.
enum class Recompute {
  kNone,       ///< no matrix product: norms, activations and scattered rows only
  kSelective,  ///< gate and up, more than half of what a layer keeps, for one product of three in backward
  kFull,       ///< all but the layers' inputs
};
constexpr std::array<std::string_view, 3> words_of(Recompute /*type*/) { return {"none", "selective", "full"}; }

/// Of the learning rate.
enum class Schedule { kConstant, kCosine, kLinear, kWsd };
constexpr std::array<std::string_view, 4> words_of(Schedule /*type*/) {
  return {"constant", "cosine", "linear", "wsd"};
}

enum class CorpusFormat { kAuto, kText, kMegatron, kDatatrove };
constexpr std::array<std::string_view, 4> words_of(CorpusFormat /*type*/) {
  return {"auto", "text", "megatron", "datatrove"};
}

enum class Packing {
  kChunks,     ///< one stream cut into sequences
  kDocuments,  ///< attention stays inside documents
};
constexpr std::array<std::string_view, 2> words_of(Packing /*type*/) { return {"chunks", "documents"}; }

}  // namespace lighthouse

#include "plan/starting_point.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "config/limits.h"
#include "config/schema.h"
#include "lighthouse/check.h"
#include "plan/advice.h"
#include "plan/memory.h"
#include "plan/shape.h"

namespace lighthouse {
namespace {

// Where Lighthouse attention begins to be faster than dense attention, forward and backward: docs/tuning.md.
constexpr int64_t kLeastLengthOnCuda = 4488;
constexpr int64_t kLeastLengthOnCpu = 512;
constexpr int64_t kLongestOfThreeLevels = 524288;  // measured with L = 3; longer rows with L = 4

constexpr int64_t kMostTokensPerStep = int64_t{1} << 19;     // of one rank
constexpr int64_t kMostTokensOfAllRanks = int64_t{1} << 22;  // if every rank is to have a sequence of its own
constexpr int64_t kWantedSteps = 1000;

// A rate of 2e-3 is the paper's for its 268M parameters, and falls with the root of the size: 4e-4 for 8B.
constexpr double kPaperRate = 2e-3;
constexpr double kPaperParameters = 268e6;
constexpr double kTrainedShare = 1.0 / 20;  // of that, where weights are trained already

class Choices {
 public:
  void choose(const std::string& key, const std::string& value, const std::string& why) {
    apply_override(point.config, key, value);
    const auto known = std::find_if(point.reasons.begin(), point.reasons.end(),
                                    [&](const auto& reason) { return reason.first == key; });
    if (known != point.reasons.end()) point.reasons.erase(known);
    point.reasons.emplace_back(key, why);
  }
  void choose(const std::string& key, int64_t value, const std::string& why) {
    choose(key, std::to_string(value), why);
  }

  StartingPoint point;
};

bool pays(const StartingRequest& request) {
  return request.seq_len >= (request.on_cuda ? kLeastLengthOnCuda : kLeastLengthOnCpu);
}

/// Near tokens exactly in every second layer, where the model does not know anything yet (docs/experiments.md).
/// `rows`: of a Lighthouse layer.
void choose_windows(int64_t rows, Choices& choices) {
  const RunConfig& config = choices.point.config;
  const int64_t span = rows * rows / (2 * config.training.seq_len);
  if (config.model.num_layers < 2 || span < 1) return;
  std::string layers;
  for (int64_t layer = 0; layer < config.model.num_layers; layer += 2) {
    layers += detail::concat(layers.empty() ? "[" : ", ", layer);
  }
  choices.choose("attention.window_layers", layers + "]",
                 "near tokens exactly in every second layer: in eleven pairs of runs of eleven it ended lower than "
                 "without, at 98,304 tokens by far; models of 5M and 15M parameters");
  choices.choose("attention.span", span, "S^2 / 2N: as many pairs of tokens as the rows of a Lighthouse layer have");
}

void choose_attention(const StartingRequest& request, bool windows, Choices& choices) {
  if (!pays(request)) return;
  const int64_t seq_len = request.seq_len;
  const bool long_row = seq_len > kLongestOfThreeLevels;
  const int64_t share = long_row ? 256 : 64;
  const int64_t tile = choices.point.config.attention.tile_topk;
  const int64_t topk = seq_len / share;
  choices.choose("attention.num_levels", long_row ? 4 : 3,
                 long_row ? "L: 3 up to 524,288 tokens; N/F is what remains if nothing is expanded, 1/16 of them"
                          : "L, as in the paper; 4 above 524,288 tokens");
  choices.choose("attention.pooling_factor", 4,
                 "p, as in the paper; 2 keeps more and costs two and a half times as much");
  choices.choose("attention.topk", topk < tile ? topk : topk / tile * tile,
                 detail::concat("k = N/", share, ", which is the quality that is bought: attention costs its square"));
  choices.choose("attention.scorer", "norm", "the cheapest of those that were measured");
  const int64_t rows = layer_shapes(choices.point.config, true).front().rows;
  const double fewer = std::pow(static_cast<double>(seq_len) / static_cast<double>(rows), 2);
  choices.choose("attention.full_attention_layers", "[]",
                 detail::concat("attention of one dense layer costs that of ", std::llround(fewer),
                                " others; the paper keeps the first two and the last two"));
  if (windows) choose_windows(rows, choices);
}

/// Sequences of a step that so many ranks can be dealt, the one that is wanted first.
std::vector<int64_t> step_sizes(const StartingRequest& request) {
  const int64_t ranks = request.num_ranks;
  const int64_t most = std::max<int64_t>(kMostTokensPerStep / request.seq_len, 1);
  const int64_t sequences = request.corpus_tokens / request.seq_len;
  const int64_t wanted = std::clamp<int64_t>(sequences / kWantedSteps, 1, most);
  if (wanted >= ranks) return {wanted / ranks * ranks};
  if (ranks * request.seq_len <= kMostTokensOfAllRanks) return {ranks};
  std::vector<int64_t> sizes;
  for (int64_t size = wanted; size >= 1 && sizes.empty(); --size) {
    if (ranks % size == 0) sizes.push_back(size);
  }
  sizes.push_back(ranks);
  return sizes;
}

/// The way to share the work that is fastest of those that fit, or keeps least. Throws InvalidArgument where so many
/// ranks cannot share it.
Alternative share_of(const StartingRequest& request, RunConfig config, int64_t device_bytes) {
  std::optional<Alternative> least;
  std::optional<InvalidArgument> problem;
  for (const int64_t size : step_sizes(request)) {
    config.training.gradient_accumulation = size;
    try {
      Alternative found = shares(config, request.num_ranks, device_bytes, request.on_cuda, request.profile).front();
      if (found.bytes <= device_bytes) return found;
      if (!least || found.bytes < least->bytes) least = std::move(found);
    } catch (const InvalidArgument& error) {
      problem = error;
    }
  }
  if (!least) throw InvalidArgument(*problem);
  return *least;
}

/// What decides memory, before the work is shared.
Choices basic_choices(const StartingRequest& request, bool windows) {
  Choices choices;
  RunConfig& config = choices.point.config;
  config.model = request.model;
  choices.choose("training.seq_len", request.seq_len, "N, as asked for");
  choices.choose("training.batch_size", 1, "one sequence at a time takes least memory, and long ones fill a device");
  choices.choose("training.device", request.on_cuda ? "cuda" : "cpu",
                 "as asked for: an error where there is none, never another");
  choices.choose("training.precision", request.on_cuda ? "bf16" : "fp32",
                 request.on_cuda ? "of matrix products and attention; weights, norms, softmax and loss stay fp32"
                                 : "bf16 is slower on most CPUs");
  config.training.lighthouse_steps = pays(request) ? 1 : 0;  // until the number of steps is known
  config.training.steps = config.training.lighthouse_steps + 1;
  config.optimizer.warmup_steps = 0;
  validate(config);
  choose_attention(request, windows, choices);
  return choices;
}

bool fits(StartingRequest request, int64_t seq_len, bool windows = false) {
  request.seq_len = seq_len;
  try {
    const RunConfig config = basic_choices(request, windows).point.config;
    return share_of(request, config, request.device_bytes).bytes <= request.device_bytes;
  } catch (const InvalidArgument&) {
    return false;
  }
}

/// A multiple of 1,024, or of 64 below that; 0: none.
int64_t longest_that_fits(const StartingRequest& request) {
  const int64_t step = fits(request, 1024) ? 1024 : 64;
  int64_t low = 0, high = (request.seq_len + step - 1) / step;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (fits(request, middle * step) ? low : high) = middle;
  }
  return low * step;
}

[[noreturn]] void refuse(const StartingRequest& request, const Alternative& least) {
  const int64_t longest = longest_that_fits(request);
  const std::string need =
      detail::concat("training.seq_len ", request.seq_len, ": takes ", memory_text(least.bytes), " on a device of ",
                     memory_text(request.device_bytes), ", with recompute = \"", least.config.training.recompute, "\"",
                     least.config.training.offload ? " and offload = true" : "",
                     least.config.training.offload_optimizer ? " and offload_optimizer = true" : "",
                     least.config.training.offload_weights ? " and offload_weights = true" : "", "; ");
  throw InvalidArgument(
      longest > 0
          ? detail::concat(need, "the longest that fits is ", longest, "; more devices share a sequence (--world-size)")
          : need +
                "no length fits: weights and gradients are whole on each device; give one with more memory, "
                "or a smaller model");
}

/// With less of the host, where it has not so much.
Alternative within_host_of(const StartingRequest& request, const Alternative& found) {
  const int64_t needed = run_host_bytes(found.config);
  if (!request.on_cuda || !request.host_bytes || needed <= *request.host_bytes) return found;
  const std::vector<Alternative> fitting =
      within_host({found}, request.device_bytes, *request.host_bytes, request.profile);
  LIGHTHOUSE_CHECK(
      !fitting.empty(), "training.seq_len ", request.seq_len, ": takes ", memory_text(needed),
      " of the host, which has ", memory_text(*request.host_bytes),
      " for each device, and no fewer kept inputs fit both; give a machine with more memory or more devices "
      "(--world-size), or a shorter length");
  return fitting.front();
}

void choose_share(const StartingRequest& request, Choices& choices) {
  StartingPoint& point = choices.point;
  const auto comfortable = static_cast<int64_t>(kCloseShare * static_cast<double>(request.device_bytes));
  Alternative found = share_of(request, point.config, comfortable);
  if (found.bytes > comfortable) found = share_of(request, point.config, request.device_bytes);
  if (found.bytes > request.device_bytes) refuse(request, found);
  found = within_host_of(request, found);
  point.config = found.config;
  point.bytes = found.bytes;
  point.is_close = found.bytes > comfortable;
  const TrainingConfig& training = point.config.training;
  choices.choose("training.recompute", std::string(word(training.recompute)),
                 detail::concat("the first of none, selective and full that fits: ", memory_text(found.bytes), " of ",
                                memory_text(request.device_bytes), point.is_close ? ", barely" : ""));
  if (request.on_cuda) {
    choices.choose("training.offload", training.offload ? "true" : "false",
                   training.offload ? "needed to fit; layer inputs wait in pinned host memory" : "not needed to fit");
  }
  if (training.offload_layers > 0) {
    choices.choose("training.offload_layers", training.offload_layers,
                   "as few as fit, the first: of them backward needs the inputs last");
  }
  if (training.offload_optimizer) {
    choices.choose("training.offload_optimizer", "true",
                   "needed to fit; moments wait in pinned host memory, and every step waits for their way");
  }
  if (training.offload_weights) {
    choices.choose("training.offload_weights", "true",
                   "needed to fit; the device has bf16 weights alone, and fp32 ones go the way of the moments");
  }
  if (training.recompute_layers > 1) {
    choices.choose("training.recompute_layers", training.recompute_layers,
                   "layers to one kept input, as few as make the inputs fit host memory");
  }
  if (request.host_bytes && !point.config.checkpoint.asynchronous) {
    choices.choose("checkpoint.asynchronous", "false", "a copy to write from does not fit host memory");
  }
  if (request.num_ranks == 1) return;
  choices.choose("parallel.data", point.config.parallel.data, "groups of GPUs that sequences of a step are dealt to");
  choices.choose("parallel.context", point.config.parallel.context,
                 "GPUs that share a sequence: of the ways that fit the fastest, by plan");
}

void choose_steps(const StartingRequest& request, Choices& choices) {
  const TrainingConfig& training = choices.point.config.training;
  const int64_t per_step = training.gradient_accumulation;
  choices.choose("training.gradient_accumulation", per_step,
                 detail::concat("sequences of a step, on all devices: ", per_step * request.seq_len, " tokens"));
  const int64_t steps = std::max<int64_t>(request.corpus_tokens / request.seq_len / per_step, 1);
  choices.choose("training.steps", steps, "the corpus once");
  choices.choose("training.lighthouse_steps", pays(request) ? steps * 5 / 8 : 0,
                 pays(request)
                     ? "5/8 of them, as in the paper; stage 2 needs a quarter to three eighths"
                     : detail::concat("dense from the start: Lighthouse pays from ",
                                      request.on_cuda ? kLeastLengthOnCuda : kLeastLengthOnCpu, " tokens on"));
  const int64_t often = std::max<int64_t>(steps / 20, 1);
  choices.choose("validation.interval", often, "twenty times");
  choices.choose("checkpoint.interval", often, "what a kill may cost, in steps");
}

void choose_optimizer(const StartingRequest& request, Choices& choices) {
  const auto parameters = static_cast<double>(num_parameters(request.model));
  const double rate = kPaperRate * std::min(1.0, std::sqrt(kPaperParameters / parameters));
  choices.choose("optimizer.learning_rate", number_text(rounded(request.trained ? rate * kTrainedShare : rate, 1)),
                 request.trained ? "a guess to try values around: a twentieth of what random weights would get"
                                 : "a guess to try values around: the paper's 2e-3 at 268M parameters, less for more");
  choices.choose("optimizer.schedule", "wsd",
                 "constant, and down at the end of stage 2; at the switch the rate must still be high");
  choices.choose("optimizer.warmup_steps", std::min<int64_t>(choices.point.config.training.steps / 20, 2000),
                 "a twentieth of the steps, at most 2000");
}

}  // namespace

StartingPoint starting_point(const StartingRequest& request) {
  // Not where more ranks are to share a sequence than have heads of their own.
  const bool windows = !request.trained && fits(request, request.seq_len, /*windows=*/true);
  Choices choices = basic_choices(request, windows);
  choose_share(request, choices);
  choose_steps(request, choices);
  choose_optimizer(request, choices);
  validate(choices.point.config);
  return choices.point;
}

}  // namespace lighthouse

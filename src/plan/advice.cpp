#include "plan/advice.h"

#include <algorithm>
#include <cstdio>
#include <optional>

#include "config/schema.h"
#include "lighthouse/check.h"
#include "plan/memory.h"
#include "plan/shape.h"
#include "plan/time.h"

namespace lighthouse {
namespace {

using Settings = std::vector<std::pair<std::string, std::string>>;

Settings joined(Settings settings, const Settings& more) {
  settings.insert(settings.end(), more.begin(), more.end());
  return settings;
}

/// Ways to keep less, from what the configuration has on, each slower than the one before: more is computed again, then
/// the inputs of all layers wait on the host, or the optimizer's moments, or both, and at last the weights too.
std::vector<Settings> ways_to_keep_less(const RunConfig& config, bool on_cuda) {
  const TrainingConfig& training = config.training;
  std::vector<Settings> list = {{}};
  for (const Recompute more : {Recompute::kSelective, Recompute::kFull}) {
    if (more > training.recompute) list.push_back({{"training.recompute", std::string(word(more))}});
  }
  if (!on_cuda) return list;
  const Settings full = list.back();
  Settings inputs, optimizer, weights;
  if (offloaded_layers(config) < config.model.num_layers) {
    if (!training.offload) inputs.emplace_back("training.offload", "true");
    if (training.offload_layers > 0) inputs.emplace_back("training.offload_layers", "0");
  }
  if (!training.offload_optimizer) optimizer.emplace_back("training.offload_optimizer", "true");
  const bool has_copies = training.precision == Precision::kBf16;
  if (has_copies && !training.offload_weights) weights.emplace_back("training.offload_weights", "true");
  std::vector<Settings> on_host = {{}};
  if (!optimizer.empty()) on_host.push_back(optimizer);
  if (!weights.empty()) on_host.push_back(joined(optimizer, weights));
  for (const Settings& more : on_host) {
    if (!more.empty()) list.push_back(joined(full, more));
    if (!inputs.empty()) list.push_back(joined(joined(full, more), inputs));
  }
  return list;
}

/// Micro-batches of one sequence, as many as make the same batch.
Settings single_sequences(const TrainingConfig& training) {
  return {{"training.batch_size", "1"},
          {"training.gradient_accumulation", std::to_string(sequences_per_step(training))}};
}

Alternative make_alternative(const RunConfig& config, const Settings& settings, bool on_cuda,
                             const DeviceProfile& profile, int64_t node_size = kNodeSize) {
  Alternative alternative{settings, config, 0, 0};
  apply_overrides(alternative.config, settings);
  alternative.bytes = run_bytes(alternative.config, on_cuda);
  alternative.seconds =
      run_seconds(alternative.config, profile, node_size) / static_cast<double>(alternative.config.training.steps);
  return alternative;
}

/// Of a way that fits and offloads the inputs of all layers, where `before` of them were offloaded and did not fit: as
/// few as fit.
Settings with_fewest_offloaded(const Alternative& all, int64_t before, int64_t device_bytes, bool on_cuda) {
  RunConfig config = all.config;
  int64_t few = before, many = config.model.num_layers;
  while (many - few > 1) {
    config.training.offload_layers = few + (many - few) / 2;
    (run_bytes(config, on_cuda) <= device_bytes ? many : few) = config.training.offload_layers;
  }
  Settings settings = all.settings;
  if (many == config.model.num_layers) return settings;
  if (settings.back().first == "training.offload_layers") settings.pop_back();
  settings.emplace_back("training.offload_layers", std::to_string(many));
  return settings;
}

/// With `base` changed, the ways to keep less up to the first that fits, or all.
std::vector<Alternative> ways_to_fit(const RunConfig& config, const Settings& base, int64_t device_bytes, bool on_cuda,
                                     const DeviceProfile& profile, int64_t node_size = kNodeSize) {
  std::vector<Alternative> ways;
  const int64_t before = offloaded_layers(config);
  for (const Settings& more : ways_to_keep_less(config, on_cuda)) {
    Settings settings = joined(base, more);
    ways.push_back(make_alternative(config, settings, on_cuda, profile, node_size));
    if (ways.back().bytes > device_bytes) continue;
    if (offloaded_layers(ways.back().config) > before) {
      settings = with_fewest_offloaded(ways.back(), before, device_bytes, on_cuda);
      ways.back() = make_alternative(config, settings, on_cuda, profile, node_size);
    }
    break;
  }
  return ways;
}

/// What keeps `data` x `context` ranks from sharing the work; "" where nothing does.
std::string problem_of(const RunConfig& config, int64_t data, int64_t context) {
  RunConfig shared = config;
  shared.parallel.data = data;
  shared.parallel.context = context;
  try {
    token_spans_of(shared);
    validate(shared);
    return "";
  } catch (const InvalidArgument& error) {
    return error.what();
  } catch (const ConfigError& error) {
    return error.what();
  }
}

/// Ways to keep less on the host, each costing more time than the one before.
std::vector<Settings> host_settings(const RunConfig& config) {
  const Settings at_once = {{"checkpoint.asynchronous", "false"}};
  std::vector<Settings> list = {{}};
  if (config.checkpoint.asynchronous) list.push_back(at_once);
  if (!config.training.offload) return list;
  for (int64_t layers = config.training.recompute_layers + 1; layers <= config.model.num_layers; ++layers) {
    const Settings fewer = {{"training.recompute_layers", std::to_string(layers)}};
    list.push_back(fewer);
    if (!config.checkpoint.asynchronous) continue;
    list.push_back(joined(at_once, fewer));
  }
  return list;
}

bool contains_all(const Settings& settings, const Settings& part) {
  return std::all_of(part.begin(), part.end(), [&](const auto& setting) {
    return std::find(settings.begin(), settings.end(), setting) != settings.end();
  });
}

/// What fits in place of it, in the words of a message.
std::string remedies(const RunConfig& config, int64_t device_bytes) {
  std::string text;
  const auto add = [&](const std::string& remedy) { text += (text.empty() ? "" : "; or ") + remedy; };
  for (const Alternative& alternative : alternatives(config, device_bytes, true, device_profiles().front())) {
    add(settings_text(alternative) + " (" + memory_text(alternative.bytes) + ")");
  }
  const int64_t seq_len = largest_seq_len(config, device_bytes, true);
  if (seq_len > 0) add("--training.seq_len " + std::to_string(seq_len));
  return text.empty() ? "nothing here makes it fit: use a smaller model or more memory" : "fits: " + text;
}

/// CUDA itself takes less.
constexpr int64_t kOthersToName = int64_t{2} << 30;

std::string words_of_others(const DeviceRoom& room) {
  if (room.others < kOthersToName) return "";
  return ", beside " + memory_text(room.others) + " of other processes, which nvidia-smi names";
}

/// What was to fit.
std::string why_it_did_not_fit(const DeviceRoom& room) {
  constexpr int64_t kPart = 20;  // of the memory
  if (room.scattered > room.available / kPart) {
    const std::string what = "that should fit, but " + memory_text(room.scattered) + " lay scattered between tensors: ";
    return what + (room.segments_expand ? "try --training.recompute selective or full, or a shorter --training.seq_len"
                                        : "the environment should have no PYTORCH_ALLOC_CONF and no "
                                          "PYTORCH_CUDA_ALLOC_CONF, or one with expandable_segments:True");
  }
  return "that should fit: see with nvidia-smi what else uses the device, or try --training.recompute selective or "
         "full";
}

}  // namespace

std::vector<Alternative> alternatives(const RunConfig& config, int64_t device_bytes, bool on_cuda,
                                      const DeviceProfile& profile) {
  if (run_bytes(config, on_cuda) <= device_bytes) return {};
  std::vector<Settings> bases = {{}};
  if (config.training.batch_size > 1) bases.push_back(single_sequences(config.training));
  if (config.training.precision != Precision::kBf16) {
    for (size_t base = 0, count = bases.size(); base < count; ++base) {
      bases.push_back(bases[base]);
      bases.back().emplace_back("training.precision", "bf16");
    }
  }
  std::vector<Alternative> list;
  for (const Settings& base : bases) {
    Alternative found = ways_to_fit(config, base, device_bytes, on_cuda, profile).back();
    const auto adds_to = [&](const Alternative& other) { return contains_all(found.settings, other.settings); };
    if (found.bytes > device_bytes || std::any_of(list.begin(), list.end(), adds_to)) continue;
    list.push_back(std::move(found));
  }
  // bf16 changes the result: it comes last, whatever it saves.
  std::stable_sort(list.begin(), list.end(), [&](const Alternative& a, const Alternative& b) {
    const bool a_changes = a.config.training.precision != config.training.precision;
    const bool b_changes = b.config.training.precision != config.training.precision;
    return a_changes != b_changes ? b_changes : a.seconds < b.seconds;
  });
  return list;
}

std::vector<Alternative> within_host(const std::vector<Alternative>& all, int64_t device_bytes, int64_t host_bytes,
                                     const DeviceProfile& profile) {
  std::vector<Alternative> list;
  for (const Alternative& one : all) {
    for (const Settings& less : host_settings(one.config)) {
      Alternative found = make_alternative(one.config, less, /*on_cuda=*/true, profile);
      if (found.bytes > device_bytes || run_host_bytes(found.config) > host_bytes) continue;
      found.settings.insert(found.settings.begin(), one.settings.begin(), one.settings.end());
      list.push_back(std::move(found));
      break;
    }
  }
  return list;
}

void check_share(const RunConfig& config) {
  const std::string problem = problem_of(config, std::max<int64_t>(config.parallel.data, 1), config.parallel.context);
  LIGHTHOUSE_CHECK(problem.empty(), "plan: ", problem);
}

std::vector<Alternative> shares(const RunConfig& config, int64_t num_ranks, int64_t device_bytes, bool on_cuda,
                                const DeviceProfile& profile, int64_t node_size) {
  std::vector<Alternative> list;
  std::string problems;
  for (int64_t context = 1; context <= num_ranks; ++context) {
    if (num_ranks % context != 0) continue;
    const std::string problem = problem_of(config, num_ranks / context, context);
    if (!problem.empty()) {
      problems += "\n  parallel.context = " + std::to_string(context) + ": " + problem;
      continue;
    }
    const Settings base = {{"parallel.data", std::to_string(num_ranks / context)},
                           {"parallel.context", std::to_string(context)}};
    const std::vector<Alternative> ways = ways_to_fit(config, base, device_bytes, on_cuda, profile, node_size);
    list.push_back(
        *std::min_element(ways.begin(), ways.end(), [](const auto& a, const auto& b) { return a.bytes < b.bytes; }));
  }
  LIGHTHOUSE_CHECK(!list.empty(), "plan: ", num_ranks, " ranks cannot share this run:", problems);
  std::stable_sort(list.begin(), list.end(), [&](const Alternative& a, const Alternative& b) {
    const bool a_fits = a.bytes <= device_bytes, b_fits = b.bytes <= device_bytes;
    return a_fits != b_fits ? a_fits : a_fits ? a.seconds < b.seconds : a.bytes < b.bytes;
  });
  return list;
}

int64_t largest_seq_len(const RunConfig& config, int64_t device_bytes, bool on_cuda) {
  constexpr int64_t kLongest = int64_t{1} << 27;  // int32 numbers the entries of its pyramid
  RunConfig changed = config;
  const auto fits = [&](int64_t seq_len) {
    changed.training.seq_len = seq_len;
    if (!is_countable(changed)) return false;
    // A shorter one may have too few tiles for the ranks that share it.
    return !problem_of(changed, 1, changed.parallel.context).empty() || run_bytes(changed, on_cuda) <= device_bytes;
  };
  const bool cut = config.attention.method == AttentionMethod::kShort;
  const int64_t step = cut ? config.attention.span : fits(1024) ? 1024 : 64;
  int64_t low = 0;  // fits, in steps
  int64_t high = kLongest / step + 1;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (fits(middle * step) ? low : high) = middle;
  }
  return low * step;
}

std::string settings_text(const Alternative& alternative) {
  std::string text;
  for (const auto& [key, value] : alternative.settings) text += (text.empty() ? "--" : " --") + key + " " + value;
  return text;
}

std::string memory_text(int64_t bytes) {
  constexpr double kGiB = 1024.0 * 1024 * 1024;
  const double gib = static_cast<double>(bytes) / kGiB;
  char text[32];
  std::snprintf(text, sizeof text, gib < 1 ? "%.0f MiB" : "%.1f GiB", gib < 1 ? gib * 1024 : gib);
  return text;
}

std::string memory_advice(const RunConfig& config, const DeviceRoom& room) {
  StepMemory most;
  bool stage_1 = false;
  for (const bool lighthouse : stages_of(config.training)) {
    const StepMemory memory = step_memory(config, lighthouse, /*on_cuda=*/true);
    if (memory.total() <= most.total()) continue;
    most = memory;
    stage_1 = lighthouse;
  }
  const std::string need = "a step of " + std::string(stage_1 ? "stage 1" : "stage 2") + " takes about " +
                           memory_text(most.total()) + ", in " + most.peak + "; the device has " +
                           memory_text(room.available) + words_of_others(room);
  const std::string parts = "kept for backward " + memory_text(most.kept) + ", weights, moments and gradients " +
                            memory_text(most.weights + most.moments + most.gradients + most.copies) +
                            ", temporaries and workspaces " + memory_text(most.temporaries + most.workspace) +
                            ", CUDA and allocator " + memory_text(most.overhead);
  return need + "\n" + parts + "\n" +
         (most.total() <= room.available ? why_it_did_not_fit(room) : remedies(config, room.available));
}

}  // namespace lighthouse

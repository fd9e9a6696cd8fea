#include "cli/plan_report.h"

#include <algorithm>

#include "config/schema.h"
#include "plan/advice.h"
#include "plan/flops.h"
#include "plan/memory.h"
#include "plan/shape.h"
#include "plan/time.h"
#include "plan/traffic.h"

namespace lighthouse::cli {
namespace {

using Json = nlohmann::ordered_json;

Json memory_json(const StepMemory& memory) {
  return {{"weights", memory.weights},       {"moments", memory.moments},   {"gradients", memory.gradients},
          {"copies", memory.copies},         {"kept", memory.kept},         {"temporaries", memory.temporaries},
          {"workspace", memory.workspace},   {"overhead", memory.overhead}, {"total", memory.total()},
          {"allocated", memory.allocated()}, {"peak", memory.peak},         {"host", memory.host}};
}

Json time_json(const StepTime& time) {
  return {{"products", time.products}, {"attention", time.attention}, {"lighthouse", time.lighthouse},
          {"rows", time.rows},         {"head", time.head},           {"recompute", time.recompute},
          {"offload", time.offload},   {"optimizer", time.optimizer}, {"launches", time.launches},
          {"exchange", time.exchange}, {"gradients", time.gradients}, {"total", time.total()}};
}

Json traffic_json(const RunConfig& config, bool lighthouse) {
  Json json = Json::object();
  for (const auto& [name, traffic] : step_traffic(config, lighthouse, 0)) {
    json[name] = {{"collectives", traffic.collectives}, {"bytes", traffic.bytes}};
  }
  return json;
}

Json rates_json(const std::vector<LinkRate>& rates) {
  Json json = Json::array();
  for (const LinkRate& rate : rates) json.push_back({{"bytes", rate.bytes}, {"bytes_per_s", rate.bytes_per_s}});
  return json;
}

Json ranks_json(const RunConfig& config, const PlanRanks& ranks) {
  const Links& links = hopper_links();
  Json json = {
      {"world_size", ranks.world_size},
      {"node_size", ranks.node_size},
      {"data", std::max<int64_t>(config.parallel.data, 1)},
      {"context", config.parallel.context},
      {"recompute", word(config.training.recompute)},
      {"offload", config.training.offload},
      {"offload_layers", offloaded_layers(config)},
      {"offload_optimizer", config.training.offload_optimizer},
      {"offload_weights", config.training.offload_weights},
      {"measured", {{"all_to_all", rates_json(links.all_to_all)}, {"all_gather", rates_json(links.all_gather)}}},
      {"assumed", {{"node_bytes_per_s", links.node_bytes_per_s}}},
      {"shares", Json::array()}};
  for (const Alternative& share : ranks.shares) {
    json["shares"].push_back(
        {{"options", settings_text(share)}, {"memory_bytes", share.bytes}, {"step_seconds", share.seconds}});
  }
  return json;
}

Json stage_json(const RunConfig& config, const PlanDevice& device, const PlanRanks& ranks, bool lighthouse) {
  const int64_t stage_1 = config.training.lighthouse_steps;
  const StepMemory memory = step_memory(config, lighthouse, device.cuda);
  const double flops = step_flops(config, lighthouse);
  Json stage = {{"stage", lighthouse ? 1 : 2},
                {"attention", lighthouse ? word(config.attention.method) : "dense"},
                {"steps", lighthouse ? stage_1 : config.training.steps - stage_1},
                {"memory_bytes", memory_json(memory)},
                {"fits", memory.total() <= device.memory_bytes},
                {"flops", flops},
                {"seconds", nullptr},
                {"tokens_per_s", nullptr},
                {"mfu", nullptr}};
  if (ranks.world_size > 1) stage["traffic"] = traffic_json(config, lighthouse);
  if (!device.profile) return stage;
  const StepTime time = step_time(config, lighthouse, *device.profile, ranks.node_size);
  const auto world_size = static_cast<double>(ranks.world_size);
  stage["seconds"] = time_json(time);
  stage["tokens_per_s"] = static_cast<double>(tokens_per_step(config.training)) / time.total();
  stage["mfu"] =
      flops / time.total() / world_size / in_precision(*device.profile, config.training.precision).peak_flops;
  if (ranks.world_size > 1) {
    stage["efficiency"] =
        step_time(on_one_rank(config), lighthouse, *device.profile).total() / (world_size * time.total());
  }
  return stage;
}

Json validation_json(const RunConfig& config, const PlanDevice& device) {
  if (!device.profile) return nullptr;
  return {{"sequences", config.validation.sequences},
          {"seconds", validation_seconds(config, *device.profile)},
          {"count", num_validations(config)}};
}

std::string why_no_time(const PlanDevice& device) {
  if (device.profile) return "";
  std::string measured;
  for (const DeviceProfile& profile : device_profiles()) measured += (measured.empty() ? "" : ", ") + profile.name;
  return "there is no profile of " + device.name + "; --device names one that has: " + measured +
         (device.cuda ? "; --device-tflops and --device-bandwidth give a rough figure" : "");
}

Json alternatives_json(const RunConfig& config, const PlanDevice& device, std::optional<int64_t> host_bytes) {
  const int64_t bytes = run_bytes(config, device.cuda);
  std::vector<Alternative> found = alternatives(config, device.memory_bytes, device.cuda, device.ranking());
  if (host_bytes && bytes <= device.memory_bytes && run_host_bytes(config) > *host_bytes) found = {{{}, config}};
  if (host_bytes) found = within_host(found, device.memory_bytes, *host_bytes, device.ranking());
  Json list = Json::array();
  for (const Alternative& alternative : found) {
    Json settings = Json::object();
    for (const auto& [key, value] : alternative.settings) settings[key] = value;
    list.push_back({{"options", settings_text(alternative)},
                    {"settings", settings},
                    {"memory_bytes", alternative.bytes},
                    {"step_seconds", device.profile ? Json(alternative.seconds) : Json(nullptr)}});
  }
  return list;
}

}  // namespace

Json plan_report(const RunConfig& config, const PlanDevice& device, const PlanRanks& ranks) {
  const std::optional<DeviceProfile>& profile = device.profile;
  const int64_t bytes = run_bytes(config, device.cuda);
  const int64_t host_bytes = device.cuda ? run_host_bytes(config) : 0;
  const std::optional<int64_t> host = device.host_share(ranks.world_size, ranks.node_size);
  Json report = {{"device",
                  {{"name", device.name},
                   {"memory_bytes", device.memory_bytes},
                   {"profile", profile ? Json(profile->name) : Json(nullptr)},
                   {"measured", profile && in_precision(*profile, config.training.precision).measured}}},
                 {"parameters", num_parameters(config.model)},
                 {"tokens_per_step", tokens_per_step(config.training)},
                 {"stages", Json::array()},
                 {"why_no_time", why_no_time(device)},
                 {"run_seconds", profile ? Json(run_seconds(config, *profile, ranks.node_size)) : Json(nullptr)},
                 {"validation", validation_json(config, device)},
                 {"memory_bytes", bytes},
                 {"host_bytes", host_bytes},
                 {"host_memory_bytes", host ? Json(*host) : Json(nullptr)},
                 {"fits", bytes <= device.memory_bytes && host_bytes <= host.value_or(host_bytes)},
                 {"is_close", static_cast<double>(bytes) > kCloseShare * static_cast<double>(device.memory_bytes)},
                 {"alternatives", alternatives_json(config, device, host)},
                 {"largest_seq_len", largest_seq_len(config, device.memory_bytes, device.cuda)}};
  if (ranks.world_size > 1) report["ranks"] = ranks_json(config, ranks);
  for (const bool lighthouse : stages_of(config.training)) {
    report["stages"].push_back(stage_json(config, device, ranks, lighthouse));
  }
  return report;
}

}  // namespace lighthouse::cli

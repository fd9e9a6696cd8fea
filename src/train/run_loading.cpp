#include "train/run_loading.h"

#include "config/schema.h"
#include "lighthouse/check.h"
#include "model/model_io.h"
#include "train/checkpoint.h"
#include "train/device.h"
#include "train/run_folder.h"
#include "train/train_state.h"

namespace lighthouse {
namespace {

RunConfig read_config(const std::filesystem::path& run_dir) {
  LIGHTHOUSE_CHECK(std::filesystem::exists(run_dir), "'", run_dir.string(),
                   "': no such folder; give the logging.run_dir of a training run");
  const std::filesystem::path file = run_dir / kConfigFile;
  LIGHTHOUSE_CHECK(std::filesystem::exists(file), "'", run_dir.string(), "' is not a run folder: it has no ",
                   kConfigFile);
  RunConfig config;
  apply_toml_file(config, file);
  validate(config);
  return config;
}

}  // namespace

LoadedRun load_run(const std::filesystem::path& run_dir, std::optional<DeviceChoice> device,
                   std::optional<Precision> precision, const std::function<void(const std::string&)>& warn) {
  const RunConfig config = read_config(run_dir);
  const auto checkpoint = load_latest_checkpoint(
      run_dir,
      [&](const std::string& text) {
        if (warn) warn(text);
      },
      CheckpointParts::kModel);
  LIGHTHOUSE_CHECK(checkpoint.has_value(), "'", run_dir.string(),
                   "' has no checkpoint yet; lighthouse train goes on with the run and saves one");
  Decoder decoder = Decoder::unset(config.model, config.attention, static_cast<uint64_t>(config.training.seed),
                                   {.dtype = resolve_precision(precision.value_or(config.training.precision)),
                                    .device = resolve_device(device.value_or(config.training.device))});
  load_parameters(decoder, checkpoint->model);
  return {config, checkpoint->step, corpus_from_json(checkpoint->state_json, run_dir.string()), std::move(decoder)};
}

}  // namespace lighthouse

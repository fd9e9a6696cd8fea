#include "train/metrics.h"

#include "io/durable_file.h"
#include "io/input_file.h"
#include "train/metrics_lines.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

fs::path drop_after(const fs::path& path, int64_t step) {
  if (!fs::exists(path) || fs::is_symlink(path)) return path;  // AppendFile refuses a link
  std::string text = read_text_file(path);
  if (keep_lines_up_to(step, text)) write_file_durably(path, text);
  return path;
}

nlohmann::ordered_json parts_to_json(const PartSeconds& seconds) {
  nlohmann::ordered_json json;
  for (size_t part = 0; part < kNumParts; ++part) json[part_name(static_cast<Part>(part))] = seconds.at(part);
  return json;
}

}  // namespace

nlohmann::ordered_json to_json(const StepRecord& record) {
  nlohmann::ordered_json json = {{"step", record.step},
                                 {"stage", static_cast<int>(record.stage)},
                                 {"loss", record.loss},
                                 {"learning_rate", record.learning_rate},
                                 {"grad_norm", record.gradient_norm},
                                 {"tokens", record.tokens},
                                 {"tokens_per_s", record.tokens_per_s},
                                 {"time", record.seconds},
                                 {"train_seconds", record.train_seconds}};
  if (record.mfu) json["mfu"] = *record.mfu;
  if (record.peak_memory) json["peak_memory"] = *record.peak_memory;
  if (record.parts) json["parts"] = parts_to_json(*record.parts);
  if (record.ranks) json["ranks"] = to_json(*record.ranks);
  for (const SourceRecord& source : record.sources) {
    nlohmann::ordered_json& entry = json["sources"][source.name];
    if (source.loss) entry["loss"] = *source.loss;
    entry["epochs"] = source.epochs;
    if (source.validation_loss) entry["validation_loss"] = *source.validation_loss;
    if (source.validation_loss_lighthouse) entry["validation_loss_lighthouse"] = *source.validation_loss_lighthouse;
  }
  if (!record.spike.empty()) json["spike"] = record.spike;
  if (!record.skipped.empty()) json["skipped"] = record.skipped;
  if (record.validation) {
    json["validation_loss"] = record.validation->dense;
    if (record.validation->lighthouse) json["validation_loss_lighthouse"] = *record.validation->lighthouse;
  }
  if (record.switch_report) json["switch"] = to_json(*record.switch_report);
  return json;
}

std::vector<std::pair<std::string, double>> scalars(const StepRecord& record) {
  std::vector<std::pair<std::string, double>> values = {{"train/loss", record.loss},
                                                        {"train/grad_norm", record.gradient_norm},
                                                        {"train/learning_rate", record.learning_rate},
                                                        {"train/tokens_per_s", record.tokens_per_s},
                                                        {"train/stage", static_cast<double>(record.stage)}};
  if (record.mfu) values.emplace_back("train/mfu", *record.mfu);
  if (record.peak_memory) values.emplace_back("train/peak_memory", static_cast<double>(*record.peak_memory));
  for (size_t part = 0; record.parts && part < kNumParts; ++part) {
    values.emplace_back(std::string("parts/") + part_name(static_cast<Part>(part)), record.parts->at(part));
  }
  if (record.ranks) {
    values.emplace_back("ranks/fastest", record.ranks->fastest.seconds);
    values.emplace_back("ranks/slowest", record.ranks->slowest.seconds);
  }
  for (const SourceRecord& source : record.sources) {
    if (source.loss) values.emplace_back("sources/loss/" + source.name, *source.loss);
    values.emplace_back("sources/epochs/" + source.name, source.epochs);
    if (source.validation_loss) {
      values.emplace_back("sources/validation_loss/" + source.name, *source.validation_loss);
    }
  }
  if (record.validation) {
    values.emplace_back("validation/loss", record.validation->dense);
    if (record.validation->lighthouse)
      values.emplace_back("validation/loss_lighthouse", *record.validation->lighthouse);
  }
  return values;
}

MetricsFile::MetricsFile(const fs::path& path, int64_t step) : file_(drop_after(path, step)) {}

void MetricsFile::write(const StepRecord& record) {
  using Json = nlohmann::ordered_json;
  file_.append(to_json(record).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace lighthouse

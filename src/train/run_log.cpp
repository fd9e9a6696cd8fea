#include "train/run_log.h"

#include <system_error>

#include "train/run_folder.h"

namespace lighthouse {

RunLog::RunLog(const std::filesystem::path& run_dir, int64_t step, bool tensorboard)
    : metrics_(run_dir / kMetricsFile, step) {
  if (tensorboard) events_.emplace(run_dir, step + 1);
}

void RunLog::write(const StepRecord& record, const std::function<void(const std::string&)>& warn) {
  try {
    metrics_.write(record);
    if (events_) events_->write(record.step, scalars(record));
  } catch (const std::system_error& error) {
    if (!failed_) warn(std::string(error.what()) + "; training goes on, lines that cannot be written are lost");
    failed_ = true;
  }
}

}  // namespace lighthouse

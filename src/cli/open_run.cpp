#include "cli/open_run.h"

#include <ATen/Parallel.h>

#include <iostream>

#include "io/printable.h"

namespace lighthouse::cli {

LoadedRun open_run(const std::string& run_dir, const std::string& device, const std::string& precision) {
  LoadedRun run = load_run(run_dir, device, precision,
                           [](const std::string& text) { std::cerr << "warning: " << printable(text) << std::endl; });
  if (run.config.training.threads > 0) at::set_num_threads(static_cast<int>(run.config.training.threads));
  return run;
}

}  // namespace lighthouse::cli

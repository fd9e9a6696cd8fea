// Configuration keys as options of a command: --training.steps 200 or --training.steps=200.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "config/schema.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace lighthouse::cli {

class ConfigOptions {
 public:
  /// Adds an option for every key of the sections, in one group of --help for each section.
  ConfigOptions(CLI::App& command, const std::vector<std::string>& sections);

  /// Sets the keys that the command line gave. Throws ConfigError naming the option.
  void apply(RunConfig& config) const;

 private:
  std::vector<std::pair<std::string, const CLI::Option*>> options_;  ///< key, its option
};

}  // namespace lighthouse::cli

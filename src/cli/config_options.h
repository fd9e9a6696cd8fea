// The configuration of a command: --config FILE.toml, and its keys as options, --training.steps 200 or
// --training.steps=200.
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
  /// Adds --config, and an option for every key, in one group of --help for each section. Must live until `command` has
  /// been parsed.
  explicit ConfigOptions(CLI::App& command);
  /// For the keys of one section alone, without --config; --help shows them under `group`.
  ConfigOptions(CLI::App& command, const std::string& section, const std::string& group);
  ConfigOptions(const ConfigOptions&) = delete;  // the command writes into this one
  ConfigOptions& operator=(const ConfigOptions&) = delete;

  /// The file, then the keys that the command line gave, all of it checked. Throws ConfigError naming file and line, or
  /// the option.
  RunConfig load() const;
  /// `config` with the keys that the command line gave, all of it checked. Throws ConfigError naming the option.
  RunConfig apply_to(RunConfig config) const;

 private:
  std::string file_;                                                 ///< empty: none
  std::vector<std::pair<std::string, const CLI::Option*>> options_;  ///< key, its option
};

}  // namespace lighthouse::cli

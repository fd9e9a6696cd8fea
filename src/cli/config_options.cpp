#include "cli/config_options.h"

#include <CLI/CLI.hpp>

#include "cli/file_option.h"

namespace lighthouse::cli {
namespace {

/// Help shows the default where other programs show the type: "--training.steps 400".
std::string shown_default(const KeyInfo& key) {
  if (key.default_value == "[]") return key.type == "list of integers" ? "N,N,..." : "TEXT,...";
  if (key.default_value == "\"\"") return key.choices.empty() ? "TEXT" : "NAME";
  const bool quoted = key.default_value.front() == '"';
  return quoted ? key.default_value.substr(1, key.default_value.size() - 2) : key.default_value;
}

CLI::Option* add_key_option(CLI::App& command, const KeyInfo& key) {
  // The value is read and checked by the configuration's own parser, which words the errors.
  CLI::Option* option = command.add_option(
      "--" + key.key, [](const CLI::results_t&) { return true; }, key.help);
  option->option_text(shown_default(key));
  if (!key.choices.empty()) option->type_name("{" + CLI::detail::join(key.choices, ",") + "}");
  option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  option->group("[" + key.key.substr(0, key.key.find('.')) + "] with defaults");
  return option;
}

}  // namespace

ConfigOptions::ConfigOptions(CLI::App& command) {
  names_file(command.add_option("--config", file_, "Configuration file; every key below may stand in it"))
      ->option_text("FILE.toml");
  for (const KeyInfo& key : config_keys()) options_.emplace_back(key.key, add_key_option(command, key));
}

ConfigOptions::ConfigOptions(CLI::App& command, const std::string& section, const std::string& group) {
  for (const KeyInfo& key : config_keys()) {
    if (key.key.starts_with(section + ".")) options_.emplace_back(key.key, add_key_option(command, key)->group(group));
  }
}

RunConfig ConfigOptions::load() const {
  RunConfig config;
  if (!file_.empty()) apply_toml_file(config, file_);
  return apply_to(std::move(config));
}

RunConfig ConfigOptions::apply_to(RunConfig config) const {
  std::vector<std::pair<std::string, std::string>> overrides;
  for (const auto& [key, option] : options_) {
    if (option->count() > 0) overrides.emplace_back(key, option->results().back());
  }
  apply_overrides(config, overrides);
  validate(config);
  return config;
}

}  // namespace lighthouse::cli

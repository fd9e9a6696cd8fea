#include "cli/file_option.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <system_error>

#include "cli/commands.h"
#include "io/posix.h"

namespace lighthouse::cli {
namespace {
namespace fs = std::filesystem;

CLI::Option* not_empty(CLI::Option* option, const char* what) {
  const auto read = [option, what](const std::string& name) {
    if (name.empty()) throw UsageError(option->get_name() + " \"\": must be the name of " + what);
    return std::string();
  };
  return option->check(CLI::Validator(read, ""));
}

}  // namespace

CLI::Option* names_file(CLI::Option* option) { return not_empty(option, "a file"); }
CLI::Option* names_folder(CLI::Option* option) { return not_empty(option, "a folder"); }
CLI::Option* names_path(CLI::Option* option) { return not_empty(option, "a file or a folder"); }

void check_output_file(const OutputFile& file) {
  std::error_code none;
  const fs::path path = file.name, folder = parent_folder(path);
  const std::string given = std::string(file.option) + " " + file.name + ": ";
  if (!path.has_filename()) throw UsageError(given + "must be the name of a file, as " + file.example);
  if (!fs::is_directory(folder, none)) throw UsageError(given + "there is no folder '" + folder.string() + "'");
  if (!fs::exists(fs::symlink_status(path, none))) return;
  if (!fs::is_regular_file(path, none)) throw UsageError(given + "is there and not a file; choose another name");
  if (!file.replaces) throw UsageError(given + "is there already; choose another name" + file.remedy);
}

}  // namespace lighthouse::cli

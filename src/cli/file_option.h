// Options of the command line whose values name files and folders.
#pragma once

#include <string>

namespace CLI {
class Option;
}

namespace lighthouse::cli {

/// Refuses an empty name, which a shell makes of a variable that is not set: UsageError that names the option.
CLI::Option* names_file(CLI::Option* option);
CLI::Option* names_folder(CLI::Option* option);
/// Of what may be either, as a corpus.
CLI::Option* names_path(CLI::Option* option);

/// A file that a command writes when it is done.
struct OutputFile {
  const char* option;   ///< "--output"
  std::string name;     ///< as it was given
  const char* example;  ///< "my.toml"
  bool replaces;        ///< a file that is there
  const char* remedy;   ///< behind "choose another name"
};

/// Before anything is computed: UsageError that names the option where there can be no such file, or one is there that
/// is not to be replaced.
void check_output_file(const OutputFile& file);

}  // namespace lighthouse::cli

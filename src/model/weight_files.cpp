#include "model/weight_files.h"

#include <set>
#include <string>

#include "io/errors.h"
#include "io/input_file.h"
#include "io/json_text.h"
#include "lighthouse/check.h"
#include "model/huggingface_config.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

/// Whether a name leads to a file in the folder, as opposed to another folder.
bool is_file_name(const fs::path& name) {
  return !name.empty() && name == name.filename() && name != "." && name != ".." &&
         name.string().find('\0') == std::string::npos;
}

}  // namespace

std::vector<fs::path> weight_files(const fs::path& folder) {
  const fs::path single = folder / kHuggingfaceWeightsFile;
  const fs::path index_path = folder / kHuggingfaceIndexFile;
  if (fs::exists(single) || !fs::exists(index_path)) return {single};
  const nlohmann::json index = parse_json(read_text_file(index_path), index_path.string());
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    throw DamagedFile(detail::concat("'", index_path.string(), "': no object weight_map"));
  }
  std::set<fs::path> files;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    const fs::path name = file.is_string() ? fs::path(file.get<std::string>()) : fs::path();
    if (!is_file_name(name)) {
      throw DamagedFile(detail::concat("'", index_path.string(), "': the file of tensor ", quoted(tensor),
                                       " is not the name of a file in this folder"));
    }
    files.insert(folder / name);
  }
  return {files.begin(), files.end()};
}

}  // namespace lighthouse

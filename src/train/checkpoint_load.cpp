#include <algorithm>
#include <set>
#include <sstream>
#include <system_error>

#include "io/errors.h"
#include "lighthouse/check.h"
#include "train/checkpoint_files.h"
#include "train/checkpoint_folders.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

/// What a rank says of a checkpoint that went while it read it: the run has a newer one by now.
constexpr const char* kGone = "gone";

/// A checkpoint that all ranks find whole, or what is wrong with it: kGone, or the damage.
std::string read_on_all(const fs::path& folder, const WantedTensors& wanted, const CheckpointRanks& ranks,
                        Checkpoint& checkpoint) {
  const auto read = [&]() -> std::string {
    const auto problem = [&](const std::exception& error) {
      std::error_code unknown;
      return fs::exists(folder, unknown) || unknown ? error.what() : kGone;
    };
    try {
      checkpoint = read_checkpoint(folder, wanted, ranks);
      return "";
    } catch (const DamagedFile& error) {
      return problem(error);
    } catch (const std::system_error& error) {
      std::string what = problem(error);
      if (what != kGone && !is_missing(error.code())) throw;
      return what;
    }
  };
  return together(ranks, read, [](const std::vector<std::string>& found) {
    if (std::find(found.begin(), found.end(), kGone) != found.end()) return std::string(kGone);
    const auto damaged = std::find_if(found.begin(), found.end(), [](const auto& text) { return !text.empty(); });
    return damaged == found.end() ? "" : *damaged;
  });
}

/// The folders that rank 0 sees.
std::vector<CheckpointFolder> folders_on_all(const fs::path& run_dir, const CheckpointRanks& ranks) {
  const auto list = [&](const std::vector<std::string>& /*texts*/) {
    std::string names;
    for (const CheckpointFolder& folder : checkpoint_folders(run_dir)) names += folder.path.filename().string() + "\n";
    return names;
  };
  std::istringstream names(together(
      ranks, [] { return std::string(); }, list));
  std::vector<CheckpointFolder> folders;
  for (std::string name; std::getline(names, name);) {
    folders.push_back(parse_checkpoint_folder(checkpoints_folder(run_dir) / name).value());
  }
  return folders;
}

std::optional<Checkpoint> load_latest(const fs::path& run_dir, const std::function<void(const std::string&)>& warn,
                                      const WantedTensors& wanted, const CheckpointRanks& ranks) {
  std::set<fs::path> damaged;
  for (;;) {
    const std::vector<CheckpointFolder> found = folders_on_all(run_dir, ranks);
    if (found.empty()) return std::nullopt;
    std::string problem;
    for (const CheckpointFolder& folder : found) {
      Checkpoint checkpoint;
      problem = read_on_all(folder.path, wanted, ranks, checkpoint);
      if (problem.empty()) return checkpoint;
      if (problem == kGone) break;
      if (!damaged.insert(folder.path).second) continue;
      warn(detail::concat("checkpoint of step ", folder.step, " is damaged and passed over: ", problem));
    }
    if (problem == kGone) continue;
    throw DamagedFile(detail::concat("none of the ", found.size(), " checkpoints in '",
                                     checkpoints_folder(run_dir).string(),
                                     "' is whole; to start again, remove that folder"));
  }
}

}  // namespace

Checkpoint load_checkpoint(const fs::path& checkpoint_dir, CheckpointParts parts) {
  return read_checkpoint(checkpoint_dir, {parts == CheckpointParts::kAll}, {});
}

std::optional<Checkpoint> load_latest_checkpoint(const fs::path& run_dir,
                                                 const std::function<void(const std::string&)>& warn,
                                                 CheckpointParts parts) {
  return load_latest(run_dir, warn, {parts == CheckpointParts::kAll}, {});
}

std::optional<Checkpoint> load_latest_checkpoint(const fs::path& run_dir,
                                                 const std::function<void(const std::string&)>& warn,
                                                 const CheckpointRanks& ranks, const std::vector<TensorRange>& moments,
                                                 const NamedTensors& weights) {
  return load_latest(run_dir, warn, {true, &moments, &weights}, ranks);
}

std::vector<fs::path> list_checkpoints(const fs::path& run_dir) {
  std::vector<fs::path> folders;
  for (const CheckpointFolder& folder : checkpoint_folders(run_dir)) folders.push_back(folder.path);
  return folders;
}

}  // namespace lighthouse

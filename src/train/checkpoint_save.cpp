#include <algorithm>
#include <cerrno>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <utility>

#include "io/atomic_folder.h"
#include "lighthouse/check.h"
#include "train/checkpoint_files.h"
#include "train/checkpoint_folders.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

void check_arguments(const Checkpoint& checkpoint, int64_t keep) {
  LIGHTHOUSE_CHECK(keep >= 1, "save_checkpoint: keep ", keep, " must be at least 1");
  LIGHTHOUSE_CHECK(checkpoint.step >= 0, "save_checkpoint: step ", checkpoint.step, " is negative");
  LIGHTHOUSE_CHECK(nlohmann::json::accept(checkpoint.state_json), "save_checkpoint: the state is not JSON");
}

/// Never made anew: a run that somebody removes does not come back in parts.
void check_run_folder(const fs::path& run_dir) {
  std::error_code missing;
  const fs::file_type type = fs::status(run_dir, missing).type();
  if (type != fs::file_type::directory) {
    throw_system_error(missing ? missing.value() : ENOTDIR, "cannot save in", run_dir);
  }
}

bool is_full(int error) { return error == ENOSPC || error == EDQUOT; }

/// One save, of which this process writes a part.
class Save {
 public:
  Save(const fs::path& run_dir, const Checkpoint& part, int64_t keep, const CheckpointRanks& ranks)
      : run_dir_(run_dir), part_(part), keep_(keep), ranks_(ranks) {}

  /// The manifest of this part.
  std::string write_part() {
    check_arguments(part_, keep_);
    check_run_folder(run_dir_);
    create_folders_durably(checkpoints_folder(run_dir_));
    if (leads()) make_ready();
    const Filling filling = ranks_.size == 1 ? Filling::kAlone : leads() ? Filling::kLeading : Filling::kHelping;
    folder_.emplace(checkpoint_folder(run_dir_, part_.step), filling, Replaced::kNamed);
    return manifest_text({part_.step, write_tensor_files(folder_->path(), part_, ranks_)});
  }

  /// On rank 0, of the manifests of all parts. What save_checkpoint returns.
  std::string conclude(const std::vector<std::string>& parts) {
    Manifest manifest{part_.step, {}};
    for (size_t rank = 0; rank < parts.size(); ++rank) {
      Manifest part = parse_manifest(parts[rank], detail::concat("rank ", rank));
      LIGHTHOUSE_CHECK(part.step == part_.step, "rank ", rank, " saves step ", part.step, ", rank 0 step ", part_.step);
      std::move(part.files.begin(), part.files.end(), std::back_inserter(manifest.files));
    }
    check_ranges(manifest);
    for (FileEntry& file : write_text_files(folder_->path(), part_, manifest.files, ranks_)) {
      manifest.files.push_back(std::move(file));
    }
    write_manifest(folder_->path(), manifest);
    if (ranks_.size > 1) remove_others(manifest);
    return commit();
  }

  /// On rank 0, after a failure of any rank: nothing of it stays. Whether there is room for another try, as there is
  /// where this one made some, which the others did not wait for.
  bool clear(const std::vector<int>& errors) {
    folder_.reset();
    const bool made_room = std::exchange(made_room_, false);
    return std::any_of(errors.begin(), errors.end(), is_full) && (made_room || make_room(run_dir_, part_.step));
  }

 private:
  bool leads() const { return ranks_.rank == 0; }

  void make_ready() {
    const fs::path parent = checkpoints_folder(run_dir_);
    remove_abandoned_temporaries(parent);
    const int64_t needed = (total_bytes(part_.model) + total_bytes(part_.optimizer)) * ranks_.size;  // alike on all
    while (free_bytes(parent) < needed && make_room(run_dir_, part_.step)) made_room_ = true;
  }

  /// Files of a save of this step that was killed.
  void remove_others(const Manifest& manifest) const {
    std::set<std::string> names = {kManifestFile};
    for (const FileEntry& file : manifest.files) names.insert(file.name);
    for (const fs::directory_entry& entry : fs::directory_iterator(folder_->path())) {
      if (!names.contains(entry.path().filename().string())) fs::remove_all(entry.path());
    }
  }

  std::string commit() {
    try {
      folder_->commit();
      remove_old_checkpoints(run_dir_, part_.step, keep_);
    } catch (const std::system_error& error) {
      if (!folder_->committed()) throw;
      return error.what();
    }
    return "";
  }

  const fs::path& run_dir_;
  const Checkpoint& part_;
  int64_t keep_;
  const CheckpointRanks& ranks_;
  std::optional<AtomicFolder> folder_;
  bool made_room_ = false;  ///< in this try
};

}  // namespace

std::string save_checkpoint(const fs::path& run_dir, const Checkpoint& checkpoint, int64_t keep,
                            const CheckpointRanks& ranks, const std::function<void()>& ready) {
  Save save(run_dir, checkpoint, keep, ranks);
  const auto write_part = [&] {
    if (ready) ready();
    return save.write_part();
  };
  return together(
      ranks, write_part,  //
      [&](const std::vector<std::string>& parts) { return save.conclude(parts); },
      [&](const std::vector<int>& errors) { return save.clear(errors); });
}

}  // namespace lighthouse

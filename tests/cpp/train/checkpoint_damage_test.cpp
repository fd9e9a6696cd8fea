// Checkpoints that were damaged: named, and the one before is loaded.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "cpp/train/checkpoint_support.h"
#include "cpp/train/valued_checkpoints.h"
#include "io/errors.h"
#include "io/safetensors.h"
#include "support/environment_number.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// One way to spoil a checkpoint, and what must be said.
struct Damage {
  const char* name;
  void (*spoil)(const fs::path& folder);
  const char* file;
  const char* says;
};

size_t place_of(const fs::path& file, const std::string& text) { return read_bytes(file).find(text); }

class CheckpointDamage : public ::testing::TestWithParam<Damage> {};

TEST_P(CheckpointDamage, IsNamedAndTheOneBeforeIsLoaded) {
  const TemporaryFolder run;
  save_checkpoint(run.path(), example(10), 5);
  save_checkpoint(run.path(), example(20), 5);
  GetParam().spoil(run / "checkpoints/step-00000020");
  const Loaded loaded(run.path());
  ASSERT_TRUE(loaded.checkpoint);
  EXPECT_TRUE(same(*loaded.checkpoint, example(10)));
  EXPECT_THAT(loaded.warnings,
              ElementsAre(AllOf(HasSubstr("step-00000020"), HasSubstr(GetParam().file), HasSubstr(GetParam().says))));
  GetParam().spoil(run / "checkpoints/step-00000010");
  std::vector<std::string> warnings;
  EXPECT_THAT(message_of<DamagedFile>([&] {
                load_latest_checkpoint(run.path(), [&](const std::string& text) { warnings.push_back(text); });
              }),
              HasSubstr("none of the 2 checkpoints"));
  EXPECT_EQ(warnings.size(), 2U);
}
INSTANTIATE_TEST_SUITE_P(
    Ways, CheckpointDamage,
    ::testing::Values(
        Damage{"NoManifest", [](const fs::path& folder) { fs::remove(folder / "manifest.json"); }, "manifest.json",
               "partial"},
        Damage{"EmptyManifest", [](const fs::path& folder) { write_bytes(folder / "manifest.json", ""); },
               "manifest.json", "not JSON"},
        Damage{"ManifestBit",
               [](const fs::path& folder) {
                 flip_bit(folder / "manifest.json", place_of(folder / "manifest.json", "\"step\": ") + 8);
               },
               "manifest.json", "its checksum differs"},
        Damage{"ManifestNestedDeep",
               [](const fs::path& folder) { write_bytes(folder / "manifest.json", std::string(58'000, '[')); },
               "manifest.json", "nested more than 128 deep"},
        Damage{"NoModel", [](const fs::path& folder) { fs::remove(folder / "model.safetensors"); }, "model.safetensors",
               "No such file"},
        Damage{"NoOptimizer", [](const fs::path& folder) { fs::remove(folder / "optimizer.safetensors"); },
               "optimizer.safetensors", "No such file"},
        Damage{"NoState", [](const fs::path& folder) { fs::remove(folder / "state.json"); }, "state.json",
               "No such file"},
        Damage{"ModelTruncated", [](const fs::path& folder) { fs::resize_file(folder / "model.safetensors", 100); },
               "model.safetensors", "100 bytes; the manifest says"},
        Damage{"ModelLonger", [](const fs::path& folder) { fs::resize_file(folder / "model.safetensors", 100'000); },
               "model.safetensors", "100000 bytes"},
        Damage{"ModelHeader", [](const fs::path& folder) { flip_bit(folder / "model.safetensors", 3); },
               "model.safetensors", "header length"},
        Damage{"ModelMetadata",
               [](const fs::path& folder) {
                 const fs::path path = folder / "model.safetensors";
                 flip_bit(path, place_of(path, "metadata") + 16);
               },
               "model.safetensors", "checksum of the file"},
        Damage{"LastTensorOfModel",
               [](const fs::path& folder) {
                 flip_bit(folder / "model.safetensors", fs::file_size(folder / "model.safetensors") - 1, 7);
               },
               "model.safetensors", "tensor \"a.bias\": checksum"},
        Damage{"TensorRenamed",
               [](const fs::path& folder) {
                 const fs::path path = folder / "optimizer.safetensors";
                 flip_bit(path, place_of(path, "exp_avg"));
               },
               "optimizer.safetensors", "no tensor \"embed.weight.exp_avg\""},
        Damage{"TensorOfAnotherDtype",
               [](const fs::path& folder) {
                 const fs::path path = folder / "model.safetensors";
                 std::string bytes = read_bytes(path);
                 bytes.replace(bytes.find("BF16\""), 6, "I16\" ,");
                 write_bytes(path, bytes);
               },
               "model.safetensors", "tensor \"a.bias\": dtype I16"},
        Damage{"OptimizerTensor",
               [](const fs::path& folder) {
                 flip_bit(folder / "optimizer.safetensors", fs::file_size(folder / "optimizer.safetensors") - 60);
               },
               "optimizer.safetensors", "tensor \"embed.weight.exp_avg\": checksum"},
        Damage{"StateBit", [](const fs::path& folder) { flip_bit(folder / "state.json", 14, 1); }, "state.json",
               "checksum of the file"},
        Damage{"FilesSwapped",
               [](const fs::path& folder) {
                 fs::copy_file(folder / "optimizer.safetensors", folder / "model.safetensors",
                               fs::copy_options::overwrite_existing);
               },
               "model.safetensors", "the manifest says"}),
    [](const auto& instance) { return instance.param.name; });

TEST(CheckpointDamageOf, AManifestOfAnotherStep) {
  const TemporaryFolder run;
  save_checkpoint(run.path(), example(10), 5);
  fs::rename(run / "checkpoints/step-00000010", run / "checkpoints/step-00000020");
  EXPECT_THAT(message_of<DamagedFile>([&] { load_checkpoint(run / "checkpoints/step-00000020"); }),
              AllOf(HasSubstr("manifest.json"), HasSubstr("step 10 is not that of the folder")));
}

// One bit of any byte of any file.
TEST(CheckpointDamageOf, AnyBit) {
  const TemporaryFolder run;
  save_checkpoint(run.path(), example(10), 1);
  const fs::path folder = run / "checkpoints/step-00000010";
  for (const std::string name : {"manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"}) {
    const std::string good = read_bytes(folder / name);
    size_t accepted = 0;
    for (size_t byte = 0; byte < good.size(); ++byte) {
      flip_bit(folder / name, byte, static_cast<int>(byte % 8));
      try {
        load_checkpoint(folder);
        ++accepted;
      } catch (const DamagedFile& error) {
        EXPECT_THAT(error.what(), HasSubstr("step-00000010")) << name << " byte " << byte;
      }
      write_bytes(folder / name, good);
    }
    EXPECT_EQ(accepted, 0U) << name;
  }
}

/// A folder of files, changed at random.
class RandomDamage {
 public:
  RandomDamage(fs::path folder, fs::path other, uint64_t seed)
      : folder_(std::move(folder)), other_(std::move(other)), random_(seed) {
    for (const std::string& name : names_in(folder_)) whole_[name] = read_bytes(folder_ / name);
  }

  /// What it is; files of which one must be named, and tensors of which one must be, if any.
  struct Done {
    std::string what;
    std::vector<std::string> files, tensors;
  };
  /// Something is different afterwards.
  Done spoil() {
    for (;;) {
      const Done done = change();
      if (changed()) return done;
    }
  }
  void mend() {
    for (const auto& [name, bytes] : whole_) write_bytes(folder_ / name, bytes);
  }

 private:
  size_t below(size_t limit) { return static_cast<size_t>(random_() % limit); }
  const std::string& any_name() { return std::next(whole_.begin(), static_cast<int64_t>(below(whole_.size())))->first; }

  bool changed() const {
    return std::any_of(whole_.begin(), whole_.end(), [&](const auto& file) {
      return !fs::exists(folder_ / file.first) || read_bytes(folder_ / file.first) != file.second;
    });
  }

  /// The tensors of a file that are others in `bytes`; none when what describes them is too.
  std::vector<std::string> changed_tensors(const std::string& name, const std::string& bytes) const {
    std::vector<std::string> names;
    if (!name.ends_with(".safetensors") || bytes.size() != whole_.at(name).size()) return names;
    const std::string& before = whole_.at(name);
    const SafetensorsFile file(folder_ / name);  // not changed yet
    size_t first = bytes.size();
    for (const StoredTensor& tensor : file.tensors()) {
      const auto begin = static_cast<size_t>(tensor.begin), count = static_cast<size_t>(tensor.bytes);
      first = std::min(first, begin);
      if (bytes.compare(begin, count, before, begin, count) != 0) names.push_back("\"" + tensor.name + "\"");
    }
    if (bytes.compare(0, first, before, 0, first) != 0) names.clear();
    return names;
  }

  Done replace(const std::string& what, const std::string& name, const std::string& bytes) {
    Done done{what + " of " + name, {name}, changed_tensors(name, bytes)};
    write_bytes(folder_ / name, bytes);
    return done;
  }

  Done change() {
    const std::string name = any_name(), second = any_name();
    std::string bytes = whole_.at(name);
    const size_t place = below(bytes.size()), count = 1 + below(std::min<size_t>(64, bytes.size() - place));
    switch (below(8)) {
      case 0:
        bytes[place] = static_cast<char>(bytes[place] ^ (1 << below(8)));
        return replace("a bit", name, bytes);
      case 1:
        return replace("zeros in a part", name, bytes.replace(place, count, std::string(count, '\0')));
      case 2:
        return replace("a cut", name, bytes.substr(0, place));
      case 3:
        return replace("more at the end", name, bytes + std::string(count, static_cast<char>(random_())));
      case 4: {
        const size_t to = below(bytes.size() - count + 1);
        const std::string part = bytes.substr(place, count);
        bytes.replace(place, count, std::string(bytes.substr(to, count)));
        return replace("two parts swapped", name, bytes.replace(to, count, part));
      }
      case 5: {
        if (!fs::exists(other_ / name)) return {};
        return replace("the older one in the place", name, read_bytes(other_ / name));
      }
      case 6:
        write_bytes(folder_ / name, whole_.at(second));
        write_bytes(folder_ / second, bytes);
        return {name + " and " + second + " swapped", {name, second}, {}};
      default:
        fs::remove(folder_ / name);
        return {"no " + name, {name}, {}};
    }
  }

  fs::path folder_, other_;
  std::mt19937_64 random_;
  std::map<std::string, std::string> whole_;
};

bool names_one(const std::string& text, const std::vector<std::string>& of) {
  return of.empty() || std::any_of(of.begin(), of.end(),
                                   [&](const std::string& name) { return text.find(name) != std::string::npos; });
}

// A hundred; LIGHTHOUSE_TEST_DAMAGES for more.
class CheckpointDamageOfRanks : public ::testing::TestWithParam<int64_t> {};
TEST_P(CheckpointDamageOfRanks, AnyKindIsNamedAndTheOneBeforeIsLoaded) {
  const TemporaryFolder run;
  for (const int64_t value : {1, 2}) ASSERT_TRUE(save(run.path(), with_value(10 * value, value), GetParam()));
  RandomDamage damage(run / "checkpoints/step-00000020", run / "checkpoints/step-00000010", 1);
  const int count = environment_number("LIGHTHOUSE_TEST_DAMAGES", 100);
  for (int number = 0; number < count && !HasFailure(); ++number) {
    const RandomDamage::Done done = damage.spoil();
    const Loaded loaded(run.path());
    ASSERT_TRUE(loaded.checkpoint.has_value()) << done.what;
    EXPECT_EQ(loaded.checkpoint->step, 10) << done.what;
    ASSERT_EQ(loaded.warnings.size(), 1U) << done.what;
    const std::string& said = loaded.warnings.front();
    EXPECT_THAT(said, HasSubstr("step-00000020")) << done.what;
    EXPECT_TRUE(names_one(said, done.files) && names_one(said, done.tensors)) << done.what << ": " << said;
    damage.mend();
  }
}
INSTANTIATE_TEST_SUITE_P(Saved, CheckpointDamageOfRanks, ::testing::Values(1, 2));

}  // namespace
}  // namespace lighthouse

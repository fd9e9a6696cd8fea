#include "data/corpus_files.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <fstream>
#include <iterator>
#include <string_view>

#include "lighthouse/check.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

// Names in a run folder, which lies in a layer above this one.
constexpr const char* kRunConfig = "config.toml";
constexpr const char* kRunLock = "lock";
constexpr std::array<std::string_view, 9> kOfRun = {kRunConfig,      kRunLock,      "metrics.jsonl",
                                                    "run.json",      "checkpoints", "corpus.txt",
                                                    "initial_model", "tokenizer",   "eval.json"};
constexpr std::string_view kEvents = "events.out.tfevents.";

bool has(const fs::path& folder, const char* name) {
  std::error_code error;
  return fs::exists(folder / name, error);
}

/// "" for what cannot be read, is no file, or is longer.
std::string short_text(const fs::path& file, uintmax_t limit) {
  std::error_code error;
  if (!fs::is_regular_file(file, error) || fs::file_size(file, error) > limit) return "";
  std::ifstream stream(file);
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// The lock of a run, which may be all that is there of it.
bool is_lock(const fs::path& file) {
  const std::string text = file.filename() == kRunLock ? short_text(file, 20) : "";
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

/// Other programs have a config.toml too, but not the key of the two stages.
bool is_run(const fs::path& folder) {
  return has(folder, kRunConfig) && (has(folder, kRunLock) || has(folder, "metrics.jsonl")) &&
         short_text(folder / kRunConfig, 100'000).find("lighthouse_steps") != std::string::npos;
}

bool is_model(const fs::path& folder) {
  return has(folder, "config.json") &&
         (has(folder, "model.safetensors") || has(folder, "model.safetensors.index.json"));
}

bool is_written_by_run(const std::string& name) {
  return name.starts_with(kEvents) || std::find(kOfRun.begin(), kOfRun.end(), name) != kOfRun.end();
}

bool has_ending(const std::string& name, const std::vector<std::string>& extensions) {
  return extensions.empty() || std::any_of(extensions.begin(), extensions.end(),
                                           [&](const std::string& ending) { return name.ends_with(ending); });
}

struct Binary {
  std::string_view ending;  ///< lower case
  std::string_view what;
  std::string_view remedy;
};
constexpr std::string_view kDecompress = "decompress it first, or make tokens of it with lighthouse-prepare";
constexpr std::string_view kUnpack = "unpack it into a folder first";
constexpr std::string_view kTokens = "write its tokens as a Megatron-LM data set, PREFIX.bin and PREFIX.idx";
constexpr std::string_view kNameThePair =
    "set data.path to PREFIX of PREFIX.bin and PREFIX.idx, a Megatron-LM data set";
constexpr std::string_view kPrepare = "make tokens of its text with lighthouse-prepare";
constexpr std::string_view kText = "write its text to files first";
constexpr std::array kBinaries = {
    Binary{".tar.gz", "a compressed archive", kUnpack},
    Binary{".tgz", "a compressed archive", kUnpack},
    Binary{".tar.zst", "a compressed archive", kUnpack},
    Binary{".tar.xz", "a compressed archive", kUnpack},
    Binary{".tar.bz2", "a compressed archive", kUnpack},
    Binary{".tbz2", "a compressed archive", kUnpack},
    Binary{".tbz", "a compressed archive", kUnpack},
    Binary{".txz", "a compressed archive", kUnpack},
    Binary{".tzst", "a compressed archive", kUnpack},
    Binary{".tar", "an archive", kUnpack},
    Binary{".zip", "an archive", kUnpack},
    Binary{".7z", "an archive", kUnpack},
    Binary{".rar", "an archive", kUnpack},
    Binary{".gz", "compressed", kDecompress},
    Binary{".zst", "compressed", kDecompress},
    Binary{".zstd", "compressed", kDecompress},
    Binary{".xz", "compressed", kDecompress},
    Binary{".bz2", "compressed", kDecompress},
    Binary{".lz4", "compressed", kDecompress},
    Binary{".lzma", "compressed", kDecompress},
    Binary{".br", "compressed", kDecompress},
    Binary{".z", "compressed", kDecompress},
    Binary{".sz", "compressed", kDecompress},
    Binary{".snappy", "compressed", kDecompress},
    Binary{".npy", "an array of numpy", kTokens},
    Binary{".npz", "arrays of numpy", kTokens},
    Binary{".ds", "a file of tokens", "keep such files in a folder of their own, or set data.format to datatrove"},
    Binary{".mds", "a file of tokens", kTokens},
    Binary{".bin", "a file of tokens", kNameThePair},
    Binary{".idx", "the index of a data set", kNameThePair},
    Binary{".tfrecord", "a file of records", kTokens},
    Binary{".h5", "an HDF5 file", kTokens},
    Binary{".hdf5", "an HDF5 file", kTokens},
    Binary{".mat", "arrays of MATLAB", kTokens},
    Binary{".joblib", "a Python object", kTokens},
    Binary{".msgpack", "a file of records", kText},
    Binary{".cbor", "a file of records", kText},
    Binary{".pkl", "a Python object", kTokens},
    Binary{".pickle", "a Python object", kTokens},
    Binary{".parquet", "a table", kPrepare},
    Binary{".arrow", "a table", kText},
    Binary{".feather", "a table", kText},
    Binary{".orc", "a table", kText},
    Binary{".avro", "a table", kText},
    Binary{".lance", "a table", kText},
    Binary{".xls", "a table", kText},
    Binary{".xlsx", "a table", kText},
    Binary{".ods", "a table", kText},
    Binary{".duckdb", "a data base", kText},
    Binary{".sqlite", "a data base", kText},
    Binary{".db", "a data base", kText},
    Binary{".pdf", "a document that is not plain text", kText},
    Binary{".docx", "a document that is not plain text", kText},
    Binary{".doc", "a document that is not plain text", kText},
    Binary{".odt", "a document that is not plain text", kText},
    Binary{".pptx", "a document that is not plain text", kText},
    Binary{".epub", "a document that is not plain text", kText},
    Binary{".safetensors", "a file of weights", kText},
    Binary{".pt", "a file of weights", kText},
    Binary{".pth", "a file of weights", kText},
    Binary{".ckpt", "a file of weights", kText},
    Binary{".gguf", "a file of weights", kText},
    Binary{".onnx", "a file of weights", kText},
    Binary{".png", "an image", kText},
    Binary{".jpg", "an image", kText},
    Binary{".jpeg", "an image", kText},
    Binary{".gif", "an image", kText},
    Binary{".webp", "an image", kText},
    Binary{".mp3", "a sound", kText},
    Binary{".wav", "a sound", kText},
    Binary{".flac", "a sound", kText},
    Binary{".mp4", "a film", kText},
};

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

}  // namespace

std::vector<std::string> list_corpus_files(const fs::path& folder, const std::vector<std::string>& extensions) {
  std::vector<std::string> names;
  const bool in_run = is_run(folder);
  try {
    for (auto entry = fs::recursive_directory_iterator(folder); entry != fs::recursive_directory_iterator(); ++entry) {
      const std::string name = entry->path().filename().string();
      std::error_code dangling;  // links to nothing and in circles are no files
      const bool left_out = name.starts_with('.') || (in_run && entry.depth() == 0 && is_written_by_run(name));
      if (entry->is_directory(dangling)) {
        if (left_out || is_run(entry->path()) || is_model(entry->path())) entry.disable_recursion_pending();
      } else if (!left_out && entry->is_regular_file(dangling) && has_ending(name, extensions) &&
                 !is_lock(entry->path())) {
        names.push_back(entry->path().lexically_relative(folder).generic_string());
      }
    }
  } catch (const fs::filesystem_error& error) {
    LIGHTHOUSE_CHECK(false, "data: cannot list '", folder.string(), "': ", error.what());
  }
  std::sort(names.begin(), names.end());
  return names;
}

void refuse_what_is_not_text(const fs::path& file) {
  const std::string name = lower(file.filename().string());
  const auto* const found = std::find_if(kBinaries.begin(), kBinaries.end(),
                                         [&](const Binary& binary) { return name.ends_with(binary.ending); });
  LIGHTHOUSE_CHECK(found == kBinaries.end(), "data: '", file.string(), "' is ", found->what, " by its name; ",
                   found->remedy,
                   ", choose endings with data.extensions, or set data.format = \"text\" to train on "
                   "its bytes as they are");
}

}  // namespace lighthouse

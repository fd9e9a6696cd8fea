#include "cli/open_run.h"

#include <ATen/Parallel.h>

#include <iostream>
#include <system_error>

#include "cli/commands.h"
#include "io/printable.h"
#include "lighthouse/check.h"
#include "model/huggingface_config.h"
#include "model/tokenizer_files.h"
#include "train/corpus_record.h"
#include "train/initial_weights.h"
#include "train/prepared_corpus.h"

namespace lighthouse::cli {

LoadedRun open_run(const std::string& run_dir, std::optional<DeviceChoice> device, std::optional<Precision> precision) {
  LoadedRun run = load_run(run_dir, device, precision,
                           [](const std::string& text) { std::cerr << "warning: " << printable(text) << std::endl; });
  if (run.config.training.threads > 0) at::set_num_threads(static_cast<int>(run.config.training.threads));
  return run;
}

void check_corpus(const std::filesystem::path& run_dir, const CorpusIdentity& corpus, const SequenceLoader& loader,
                  const std::string& path) {
  const std::string other = difference(corpus, loader.identity(), corpus_changes(run_dir, loader.files()));
  LIGHTHOUSE_CHECK(other.empty(), "the corpus '", path, "' is not the one of the run (", other,
                   "), so it may hold what was trained on; give that data, or other text with --data PATH");
}

void check_one_model(const std::string& run, const std::string& model) {
  if (!run.empty() && !model.empty()) throw UsageError("--run and --model: give one of them");
  if (run.empty() && model.empty()) {
    throw UsageError("give the model: --run RUN, a run folder, or --model FOLDER, an exported one");
  }
}

void check_model_folder(const std::string& folder) {
  std::error_code error;
  if (std::filesystem::exists(std::filesystem::path(folder) / kHuggingfaceConfigFile, error)) return;
  if (error) throw UsageError("--model: '" + folder + "': " + error.message());
  throw UsageError("--model: '" + folder + "' is no folder with a " + kHuggingfaceConfigFile +
                   "; give one that lighthouse export or save_pretrained has written");
}

std::filesystem::path tokenizer_of(const std::filesystem::path& run_dir, const RunConfig& config) {
  constexpr int64_t kByteVocabulary = 256;
  if (has_text_tokenizer(run_dir / kTokenizerFolder)) return run_dir / kTokenizerFolder;
  if (config.model.vocab_size == kByteVocabulary) return {};
  const std::filesystem::path origin = initial_model_of(run_dir, config);
  return has_text_tokenizer(origin) ? origin : std::filesystem::path();
}

}  // namespace lighthouse::cli

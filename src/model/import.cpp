#include "model/import.h"

#include "io/input_file.h"
#include "io/json_text.h"
#include "lighthouse/check.h"
#include "model/huggingface_config.h"
#include "model/model_io.h"
#include "model/tensor_file.h"
#include "model/weight_files.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

/// Tensors that some checkpoints hold although the model has no such weight.
bool is_redundant(const std::string& name, const ModelConfig& model) {
  return name.ends_with(".rotary_emb.inv_freq") || (model.tie_embeddings && name == "lm_head.weight");
}

template <typename Parse>
auto read_config(const fs::path& folder, const Parse& parse) {
  const fs::path path = folder / kHuggingfaceConfigFile;
  return parse(parse_json(read_text_file(path), path.string()), path.string());
}

}  // namespace

ModelConfig read_huggingface_config(const fs::path& folder) { return read_config(folder, parse_huggingface_config); }

int64_t read_huggingface_positions(const fs::path& folder) { return read_config(folder, huggingface_positions); }

void load_huggingface_weights(Decoder& decoder, const fs::path& folder) {
  NamedTensors tensors;
  for (const fs::path& path : weight_files(folder)) {
    for (auto& [name, tensor] : read_tensors(path)) {
      if (!is_redundant(name, decoder.config())) tensors.emplace_back(name, std::move(tensor));
    }
  }
  tensors.insert(tensors.end(), decoder.buffers().begin(), decoder.buffers().end());
  load_parameters(decoder, tensors, detail::concat("'", folder.string(), "'"));
}

Decoder load_huggingface(const fs::path& folder, const AttentionConfig& attention, const Execution& execution) {
  constexpr uint64_t kSeed = 0;  // of the buffers
  Decoder decoder = Decoder::unset(read_huggingface_config(folder), attention, kSeed, execution);
  load_huggingface_weights(decoder, folder);
  return decoder;
}

}  // namespace lighthouse

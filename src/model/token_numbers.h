// Whether two tokenizers give the same tokens the same numbers. Knows no torch.
#pragma once

#include <filesystem>
#include <string>

namespace lighthouse {

/// What tells the tokenizer in `folder` from that of a model, in words; "" where all tokens of the model's have the
/// same numbers in it (it may have more), or where one of the two has none that can be compared. Compared are
/// tokenizer.json of both, or else the bytes of tokenizer.model. Throws DamagedFile, std::system_error.
std::string tokenizer_difference(const std::filesystem::path& folder, const std::filesystem::path& model);

}  // namespace lighthouse

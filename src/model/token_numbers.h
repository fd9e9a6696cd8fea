// Whether two tokenizers give the same tokens the same numbers. Knows no torch.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace lighthouse {

/// What tells the tokenizer in `folder` from that of a model, in words; "" where all tokens of the model's have the
/// same numbers in it (it may have more); nullopt where the two have no file that can be compared. Compared are
/// tokenizer.json of both, and the bytes of tokenizer.model. Throws DamagedFile, std::system_error.
std::optional<std::string> tokenizer_difference(const std::filesystem::path& folder,
                                                const std::filesystem::path& model);

}  // namespace lighthouse

#include "data/encoded_text.h"

#include <algorithm>

#include "data/corpus_files.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

class EncodedText final : public TokenSource {
 public:
  EncodedText(std::unique_ptr<TokenSource> text, Tokenizer& tokenizer) : text_(std::move(text)) {
    fingerprint_ = text_->fingerprint();
    const std::vector<int64_t>& offsets = text_->document_offsets();
    for (size_t document = 0; document + 1 < offsets.size(); ++document) {
      add(offsets[document], offsets[document + 1], tokenizer);
    }
  }

  void read(int64_t begin, std::span<int64_t> tokens) const override {
    const auto first = tokens_.begin() + begin;
    std::copy(first, first + static_cast<int64_t>(tokens.size()), tokens.begin());
  }
  std::string describe(int64_t token) const override {
    const auto after = std::upper_bound(document_offsets_.begin(), document_offsets_.end(), token);
    const auto document = after - document_offsets_.begin() - 1;
    return detail::concat("token ", token - document_offsets_[static_cast<size_t>(document)], " of document ",
                          document + 1);
  }
  std::vector<CorpusFile> files() const override { return text_->files(); }

 private:
  void add(int64_t begin, int64_t end, Tokenizer& tokenizer) {
    std::string text = bytes_of(begin, end);
    if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
    if (text.empty()) return;
    std::vector<int64_t> tokens;
    try {
      tokens = tokenizer.encode_document(text);
    } catch (const InvalidArgument& error) {
      throw InvalidArgument(detail::concat("data: the text from ", text_->describe(begin), " on: ", error.what()));
    }
    const std::vector<int64_t>& ends = tokenizer.ends();
    if (!ends.empty() && (tokens.empty() || tokens.back() != ends.front())) tokens.push_back(ends.front());
    if (tokens.empty()) return;
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    document_offsets_.push_back(static_cast<int64_t>(tokens_.size()));
  }

  std::string bytes_of(int64_t begin, int64_t end) const {
    constexpr int64_t kPart = int64_t{1} << 16;
    std::string text;
    for (std::vector<int64_t> part; begin < end; begin += kPart) {
      part.resize(static_cast<size_t>(std::min(kPart, end - begin)));
      text_->read(begin, part);
      for (const int64_t byte : part) text += static_cast<char>(byte);
    }
    return text;
  }

  std::unique_ptr<TokenSource> text_;
  std::vector<int64_t> tokens_;
};

}  // namespace

std::unique_ptr<TokenSource> open_encoded_text(const std::string& path, const std::vector<std::string>& extensions,
                                               Tokenizer& tokenizer, const std::filesystem::path& folder,
                                               int64_t most_bytes) {
  std::unique_ptr<TokenSource> text = open_text_source(path, extensions);
  for (const CorpusFile& file : text->files()) {
    const std::filesystem::path whole = path;
    refuse_what_is_not_text(std::filesystem::is_directory(whole) ? whole / file.name : whole);
  }
  LIGHTHOUSE_CHECK(text->num_tokens() <= most_bytes, "data: '", path, "' has ", text->num_tokens(),
                   " bytes of text, more than the ", most_bytes,
                   " that are tokenized on the way; prepare it with lighthouse-prepare --tokenizer ", folder.string());
  return std::make_unique<EncodedText>(std::move(text), tokenizer);
}

}  // namespace lighthouse
